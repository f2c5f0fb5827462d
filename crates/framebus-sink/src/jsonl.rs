//! JSON lines: one object per result, to standard output or a rotated file.

use framebus_client::{ResultSample, Results, json};
use framebus_config::{CameraName, JsonlPath, Sink, SinkKind};
use framebus_service::{Failure, Kind, Service, Vitals};
use framebus_types::{Counter, State};
use rolling_file::{BasicRollingFileAppender, RollingConditionBasic};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How often the sink looks up when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// Results taken before the lines reach the file although more are coming.
const RESULTS_MAX: usize = 64;

/// Runs until asked to stop; then takes what is still there.
pub(crate) fn serve(service: &Service, sink: &Sink, vitals: &Vitals) -> Result<(), Failure> {
    let SinkKind::Jsonl { path, rotate_mib, keep } = &sink.kind;
    let mut writer = open(path, *rotate_mib, *keep)?;
    vitals.set_detail(&match path {
        JsonlPath::Stdout => "jsonl to standard output".to_owned(),
        JsonlPath::File(path) => format!("jsonl to {}", path.display()),
    });
    let mut results = Results::new(service.bus().result_subscriber(sink.name.as_str())?);
    vitals.set_state(State::Live, "");
    service.ready();
    let mut line = Vec::new();
    // Results that are still taken after the wish to stop: all that can be
    // waiting on the bus by then.
    let mut left = service.config().bus.result_buffer;
    loop {
        let stopping = service.shutdown().requested();
        let mut received = 0;
        let mut next = results.wait_for(LOOK)?;
        while let Some(result) = next.take() {
            received += 1;
            vitals.add(Counter::Received, 1);
            if wanted(&sink.cameras, &result) {
                line.clear();
                render(&result, &mut line);
                if !write(writer.as_mut(), &line, vitals) {
                    return Ok(());
                }
            }
            if received < RESULTS_MAX {
                next = results.poll()?;
            }
        }
        if received > 0 && !noted(writer.flush(), vitals) {
            return Ok(());
        }
        vitals.add(Counter::Lost, results.lost() - vitals.get(Counter::Lost));
        vitals.add(Counter::BadHeaders, results.bad_headers() - vitals.get(Counter::BadHeaders));
        service.progress();
        if stopping {
            left = left.saturating_sub(received);
            if received == 0 || left == 0 {
                vitals.set_state(State::Stopping, "");
                return Ok(());
            }
        }
    }
}

fn open(path: &JsonlPath, rotate_mib: u64, keep: usize) -> Result<Box<dyn Write>, Failure> {
    let JsonlPath::File(path) = path else {
        return Ok(Box::new(io::stdout().lock()));
    };
    let fail = |error: io::Error| {
        let error = anyhow::Error::new(error).context(format!(
            "cannot write {}; does its folder exist and may this user write there?",
            path.display()
        ));
        Failure::new(Kind::Unavailable, error)
    };
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let condition = RollingConditionBasic::new().max_size(rotate_mib * 1024 * 1024);
    Ok(Box::new(BasicRollingFileAppender::new(path, condition, keep).map_err(fail)?))
}

fn wanted(cameras: &[CameraName], result: &ResultSample) -> bool {
    cameras.is_empty() || cameras.iter().any(|camera| camera.as_str() == result.camera())
}

fn render(result: &ResultSample, line: &mut Vec<u8>) {
    // Writing a `Value` into memory cannot fail.
    if serde_json::to_writer(&mut *line, &json::result(result)).is_ok() {
        line.push(b'\n');
    }
}

fn write(writer: &mut dyn Write, line: &[u8], vitals: &Vitals) -> bool {
    let written = writer.write_all(line);
    if written.is_ok() {
        vitals.add(Counter::Written, 1);
        vitals.add(Counter::WrittenBytes, line.len() as u64);
    }
    noted(written, vitals)
}

/// Notes how writing went; `false` when there is nobody left to write for. A
/// full disk is a state, and may pass.
fn noted(result: io::Result<()>, vitals: &Vitals) -> bool {
    match result {
        Ok(()) => {
            if vitals.state() == State::Degraded {
                vitals.set_state(State::Live, "");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            tracing::info!("the reader of standard output is gone");
            return false;
        }
        Err(error) => {
            vitals.add(Counter::Errors, 1);
            vitals.set_state(State::Degraded, &format!("cannot write: {error}"));
        }
    }
    true
}
