//! How many frames cameras offer: `30`, `120,10x7`, `max`, `150%`.

/// `--fps`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rate {
    /// Every source waits for the inference process: nothing is dropped.
    Max,
    /// All cameras together this share of what the bare engine can do; 1 is all of it.
    Load(f64),
    /// Frames a second: of every camera, or of each.
    Fps(Vec<f64>),
}

/// Most cameras of one instance.
pub(super) const CAMERAS_MAX: usize = 64;

pub(super) fn parse(text: &str) -> Result<Rate, String> {
    let bad = || {
        "must be frames a second from 0.1 to 1000 (30), a list (120,10x7 is one camera at 120 and \
         seven at 10), max, or a share of the engine's throughput (150%)"
            .to_owned()
    };
    if text == "max" {
        return Ok(Rate::Max);
    }
    let number = |text: &str, max: f64| text.parse().ok().filter(|n| (0.1..=max).contains(n));
    if let Some(percent) = text.strip_suffix('%') {
        return number(percent, 1000.0)
            .map(|percent: f64| Rate::Load(percent / 100.0))
            .ok_or_else(bad);
    }
    let mut list = Vec::new();
    for part in text.split(',') {
        let (fps, count) = match part.split_once('x') {
            Some((fps, count)) => (fps, count.parse().map_err(|_| bad())?),
            None => (part, 1),
        };
        let fps = number(fps, 1000.0).ok_or_else(bad)?;
        if count == 0 || list.len() + count > CAMERAS_MAX {
            return Err(format!("an instance has 1 to {CAMERAS_MAX} cameras"));
        }
        list.extend(std::iter::repeat_n(fps, count));
    }
    Ok(Rate::Fps(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_nonsense_refused() {
        assert_eq!(parse("30"), Ok(Rate::Fps(vec![30.0])));
        assert_eq!(parse("max"), Ok(Rate::Max));
        assert_eq!(parse("150%"), Ok(Rate::Load(1.5)));
        assert_eq!(parse("120,10x3"), Ok(Rate::Fps(vec![120.0, 10.0, 10.0, 10.0])));
        for bad in ["", "0", "-3", "x", "10x", "10x0", "10x65", "0%", "NaN", "5,,5", "1e9"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
