//! Inputs as given become cameras of a configuration.

use super::{Args, trouble};
use crate::private::{quote, quote_path};
use framebus_service::Failure;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Endings of pictures; those that capture decodes.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];
/// Sources that are no paths.
const SCHEMES: [&str; 6] = ["rtsp://", "rtsps://", "v4l2:", "test:", "gst:", "file:"];

/// One INPUT.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    /// As given.
    pub(super) given: String,
    /// `source` of the camera.
    pub(super) source: String,
    /// Frames come whether or not somebody takes them, without an end.
    pub(super) live: bool,
    /// Pictures of a folder, in the order in which they come.
    pub(super) files: Vec<PathBuf>,
    /// One frame only.
    pub(super) picture: bool,
    /// What annotated pictures are named after.
    pub(super) stem: String,
}

/// The inputs that can be tried, and how many cannot.
pub(super) fn plan(given: &[String]) -> (Vec<Input>, usize) {
    let mut inputs = Vec::new();
    let mut troubles = 0;
    for (index, given) in given.iter().enumerate() {
        match input(given, index) {
            Ok(input) => inputs.push(input),
            Err(reason) => {
                trouble(given, &reason);
                troubles += 1;
            }
        }
    }
    (inputs, troubles)
}

fn input(given: &str, index: usize) -> Result<Input, String> {
    let scheme = SCHEMES.iter().find(|scheme| given.starts_with(*scheme)).copied();
    let path = match scheme {
        None => Path::new(given),
        Some("file:") => Path::new(&given["file:".len()..]),
        Some(scheme) => {
            return Ok(Input {
                given: given.to_owned(),
                source: given.to_owned(),
                live: matches!(scheme, "rtsp://" | "rtsps://" | "v4l2:"),
                files: Vec::new(),
                picture: false,
                stem: format!("input{}", index + 1),
            });
        }
    };
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    let text = absolute.to_str().ok_or("the path is not UTF-8; rename it")?;
    let files = if meta.is_dir() { pictures(path)? } else { Vec::new() };
    if meta.is_dir() && files.is_empty() {
        return Err(format!("the folder has no pictures ({})", PICTURES.join(", ")));
    }
    Ok(Input {
        given: given.to_owned(),
        // Paths are no place for variables.
        source: format!("file:{}", text.replace("${", "$${")),
        live: false,
        picture: !meta.is_dir() && is_picture(path),
        files,
        stem: stem(path),
    })
}

pub(super) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "frame".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

pub(crate) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| PICTURES.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Pictures of a folder in the order of their names, as capture takes them.
pub(crate) fn pictures(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot be read: {error}"))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_picture(path) && path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// Name of the camera of an input.
pub(super) fn camera(index: usize) -> String {
    format!("input{}", index + 1)
}

/// The configuration for some inputs.
pub(super) fn config(
    args: &Args,
    model: &Path,
    root: &Path,
    inputs: &[Input],
) -> Result<String, Failure> {
    let backend = match args.backend.as_str() {
        "auto" if args.triton_url.is_some() => format!("[{}]", quote("triton")),
        "auto" => quote("auto"),
        names => format!("[{}]", names.split(',').map(quote).collect::<Vec<_>>().join(", ")),
    };
    // Frames are read by inference, and by this process where it draws them.
    let frame_readers = 1 + usize::from(args.annotate.is_some());
    let mut text = format!(
        "\n[bus]\nroot = {}\nframe_subscribers = {frame_readers}\nresult_subscribers = 2\n\n\
         [log]\nlevel = \"warn\"\nformat = \"text\"\n\n\
         [model]\npath = {}\nbackend = {backend}\ninput = {}\nprecision = {}\n\
         confidence = {:?}\niou = {:?}\nmax_detections = {}\n",
        quote_path(root)?,
        quote_path(model)?,
        quote(&args.input),
        quote(&args.precision),
        args.confidence,
        args.iou,
        args.max_detections,
    );
    if let Some(url) = &args.triton_url {
        let model = args.triton_model.as_ref();
        let model = model.map(|name| format!("model = {}\n", quote(name))).unwrap_or_default();
        let _ = write!(text, "\n[triton]\nurl = {}\n{model}", quote(&url.to_string()));
    }
    for (index, input) in inputs.iter().enumerate() {
        let file = input.source.starts_with("file:");
        let delivery = if input.live { "latest" } else { "every-frame" };
        let pace = if file { "pace = \"fast\"\n" } else { "" };
        let _ = write!(
            text,
            "\n[[camera]]\nname = {}\nsource = {}\ndelivery = \"{delivery}\"\n{pace}",
            quote(&camera(index)),
            quote(&input.source),
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Detect {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_written_configuration_is_valid() {
        let folder = tempfile::tempdir().expect("temp dir");
        let odd = folder.path().join("o\"d\\d ${HOME} ä.jpg");
        std::fs::write(&odd, b"x").expect("written");
        let odd = odd.to_str().expect("UTF-8");
        let detect = Detect::parse_from([
            "detect",
            "--confidence",
            "0",
            "--iou",
            "1",
            "--backend",
            "openvino,triton",
            "--triton-url",
            "[::1]:9001",
            "--triton-model",
            "m",
            "--input",
            "384x640",
            "--precision",
            "f32",
            odd,
            "test:ball?frames=3",
            "rtsp://127.0.0.1:1/x",
        ]);
        let (inputs, troubles) = plan(&detect.args.inputs);
        assert_eq!((inputs.len(), troubles), (3, 0));
        let root = Path::new("/tmp/fb");
        let text = config(&detect.args, Path::new("/m.onnx"), root, &inputs);
        let text = text.expect("UTF-8");
        let config = framebus_config::parse(&text, Path::new("x.toml"), &|_| None)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!(config.cameras[0].source, framebus_config::Source::File(odd.into()));
        assert_eq!(config.model.iou, 1.0);
        assert_eq!(config.triton.url.to_string(), "grpc://[::1]:9001");
        assert_eq!(config.triton.model.as_deref(), Some("m"));
        assert!(inputs[0].picture && !inputs[0].live && inputs[2].live);
        assert!(!framebus_service::is_offline(&config));
    }

    #[test]
    fn folders_are_listed_in_order_and_troubles_counted() {
        let folder = tempfile::tempdir().expect("temp dir");
        let text = folder.path().to_str().expect("UTF-8").to_owned();
        let (inputs, troubles) = plan(&[text.clone(), format!("{text}/none.jpg")]);
        assert_eq!((inputs.len(), troubles), (0, 2));
        for name in ["b.JPG", "a.png", "c.txt"] {
            std::fs::write(folder.path().join(name), b"x").expect("written");
        }
        let (inputs, troubles) = plan(&[text]);
        let names: Vec<_> = inputs[0].files.iter().filter_map(|file| file.file_name()).collect();
        assert_eq!((names, troubles), (vec!["a.png".as_ref(), "b.JPG".as_ref()], 0));
    }
}
