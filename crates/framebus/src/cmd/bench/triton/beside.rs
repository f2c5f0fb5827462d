//! Another client that takes turns: a program that is told on its standard input what to
//! do, a word a line.
//!
//! It first prints one JSON object, `{"client": NAME, "transports": [TRANSPORT, …]}`, once
//! it is ready. For each line that is one of these transports it then asks the server
//! once, over that transport, and prints the milliseconds from its input tensor to its
//! output tensors. It ends with its standard input, or when it reads `end`.

use super::super::meters;
use super::ways::{Call, Runner, Way};
use crate::children::{Child, quiet};
use framebus_service::{Failure, Kind};
use serde_json::Value;
use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::rc::Rc;
use std::time::Duration;

/// Time that it has to stop.
const STOP: Duration = Duration::from_secs(5);

/// The program.
pub(super) struct Beside {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// One of its transports.
pub(super) struct Other {
    program: Rc<RefCell<Beside>>,
    transport: String,
}

impl Beside {
    /// Starts it and waits until it is ready.
    pub(super) fn start(command: &str) -> Result<Vec<Way>, Failure> {
        let failed = |reason: String| {
            Failure::message(Kind::Unavailable, format_args!("--beside: {reason}"))
        };
        // The shell becomes the program: the process number is the program's.
        let args = ["-c".into(), format!("exec {command}").into()];
        let mut child =
            Child::start("beside", Path::new("/bin/sh"), &args, Stdio::piped(), quiet())?;
        let stdout = child.take_stdout().ok_or_else(|| failed("it has no output".to_owned()))?;
        let mut program = Self { child, answers: BufReader::new(stdout) };
        let (client, transports) = greeting(&program.line().map_err(failed)?).map_err(failed)?;
        let program = Rc::new(RefCell::new(program));
        let way = |transport: String| Way {
            client: client.clone(),
            transport: transport.clone(),
            runner: Ok(Runner::Other(Other { program: program.clone(), transport })),
        };
        Ok(transports.into_iter().map(way).collect())
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => {
                let (exit, _) = self.child.finish(STOP, || {});
                Err(format!("it ended: {}", exit.reason()))
            }
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have memory to remove.
        self.child.say("end");
        let _ = self.child.finish(STOP, || {});
    }
}

impl Other {
    pub(super) fn call(&mut self) -> Result<Call, String> {
        let mut program = self.program.borrow_mut();
        program.child.say(&self.transport);
        let line = program.line()?;
        let network_ms = line.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0);
        let network_ms = network_ms.ok_or_else(|| format!("it says {line:?} instead of ms"))?;
        Ok(Call { network_ms, ..Call::default() })
    }

    /// CPU time of the program so far, seconds.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        meters::cpu_s(self.program.borrow().child.pid())
    }
}

/// What it says of itself.
fn greeting(line: &str) -> Result<(String, Vec<String>), String> {
    let parse = || {
        let value: Value = serde_json::from_str(line).ok()?;
        let client = crate::out::plain(value["client"].as_str()?);
        let words = value["transports"].as_array()?.iter().map(Value::as_str);
        let transports: Vec<String> =
            words.map(|word| word.map(crate::out::plain)).collect::<Option<_>>()?;
        (!transports.is_empty()).then_some((client, transports))
    };
    parse().ok_or_else(|| {
        format!("it must begin with {{\"client\": NAME, \"transports\": [NAME, …]}}, not {line:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_names_client_and_transports() {
        let line = r#"{"client": "other 1.0", "transports": ["grpc", "x"], "more": 1}"#;
        let names = vec!["grpc".to_owned(), "x".to_owned()];
        assert_eq!(greeting(line), Ok(("other 1.0".to_owned(), names)));
        for bad in ["", "{}", r#"{"client": "a", "transports": []}"#, "12.5"] {
            let reason = greeting(bad).expect_err(bad);
            assert!(reason.starts_with("it must begin with {\"client\""), "{reason}");
        }
    }

    #[test]
    fn a_program_is_asked_line_by_line_and_its_end_is_told() {
        let script = r#"sh -c 'echo "{\"client\":\"c\",\"transports\":[\"grpc\"]}"; read a; echo 12.5; read a; echo no; exit 3'"#;
        let mut ways = Beside::start(script).expect("it starts");
        assert_eq!(ways[0].title(), "c, grpc");
        let Ok(Runner::Other(other)) = &mut ways[0].runner else { panic!("another client") };
        assert_eq!(other.call().map(|call| call.network_ms), Ok(12.5));
        assert!(other.cpu_s().is_some());
        assert_eq!(other.call().map(|_| ()), Err("it says \"no\" instead of ms".to_owned()));
        let reason = other.call().map(|_| ()).expect_err("it has ended");
        assert!(reason.starts_with("it ended: "), "{reason}");
    }
}
