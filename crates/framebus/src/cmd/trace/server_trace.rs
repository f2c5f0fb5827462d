//! The trace that Triton writes about itself.
//!
//! `--trace-config triton,file=FILE` gives FILE, or FILE.0, FILE.1, … where
//! `log-frequency` is set: JSON arrays on one line, possibly without their end, of objects
//! such as `{"id":1,"model_name":"yolov8n","model_version":1,"request_id":"123"}` and
//! `{"id":1,"timestamps":[{"name":"QUEUE_START","ns":42}]}`, in any order for one `id`
//! ("Triton Server Trace" in NVIDIA's user guide, `src/tracer.cc` of the server).

use serde_json::{Deserializer, Value};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Longest file that is read: it is held in memory, and has some 300,000 requests.
const FILE_MAX: u64 = 256 << 20;
/// Requests remembered of a file, and of all files together.
const REQUESTS_MAX: usize = 1_000_000;

/// When a request passed the stages of the server, ns of the server's CLOCK_MONOTONIC; 0
/// for what the trace does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamps {
    /// It was read completely, and parsed.
    read: u64,
    request_start: u64,
    pub(super) queue_start: u64,
    pub(super) compute_start: u64,
    pub(super) input_end: u64,
    pub(super) output_start: u64,
    pub(super) compute_end: u64,
    request_end: u64,
    send_start: u64,
}

impl Stamps {
    fn set(&mut self, name: &str, ns: u64) {
        let stamp = match name {
            "GRPC_WAITREAD_END" | "HTTP_RECV_END" => &mut self.read,
            "REQUEST_START" => &mut self.request_start,
            "QUEUE_START" => &mut self.queue_start,
            "COMPUTE_START" => &mut self.compute_start,
            "COMPUTE_INPUT_END" => &mut self.input_end,
            "COMPUTE_OUTPUT_START" => &mut self.output_start,
            "COMPUTE_END" => &mut self.compute_end,
            "REQUEST_END" => &mut self.request_end,
            "GRPC_SEND_START" | "HTTP_SEND_START" => &mut self.send_start,
            // GRPC_WAITREAD_START is when it began to wait for any request; GRPC_SEND_END
            // may come after the client has the answer.
            _ => return,
        };
        *stamp = ns;
    }

    /// From the request in the server's memory to its answer there; `None` where the
    /// stamps do not say. COMPUTE_END and REQUEST_END may come after the answer has gone.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        let first = |stamps: [u64; 2]| stamps.into_iter().find(|ns| *ns > 0);
        let from_ns = first([self.read, self.request_start])?;
        let to_ns = first([self.send_start, self.request_end])?;
        (from_ns <= to_ns).then_some((from_ns, to_ns))
    }
}

/// A request that the server speaks of.
#[derive(Debug, Clone)]
pub(super) struct Served {
    /// The id that its client gave it.
    pub(super) request: u64,
    pub(super) model: Rc<str>,
    pub(super) version: String,
    pub(super) stamps: Stamps,
}

/// What was found in the files.
#[derive(Debug, Default)]
pub(super) struct ServerTrace {
    pub(super) served: Vec<Served>,
    /// Pieces that are no JSON.
    pub(super) skipped: u64,
    /// What a person should know: files that are not there or too long.
    pub(super) notes: Vec<String>,
}

impl ServerTrace {
    /// Reads FILE, FILE.0, FILE.1, … of each path, and keeps the requests with the
    /// `wanted` ids.
    pub(super) fn read(paths: &[PathBuf], wanted: &HashSet<u64>) -> Self {
        let mut trace = Self::default();
        for path in paths {
            let files = files(path);
            if files.is_empty() {
                trace.notes.push(format!(
                    "{name}: neither it nor {name}.0 is there. The server writes a file every N \
                     requests with --trace-config triton,log-frequency=N, else one when it stops",
                    name = path.display()
                ));
            }
            for file in files {
                match content(&file) {
                    Ok(bytes) => trace.add(&bytes, wanted),
                    Err(error) => trace.notes.push(format!("{}: {error}", file.display())),
                }
            }
        }
        if trace.served.len() == REQUESTS_MAX {
            trace.notes.push(format!("more than {REQUESTS_MAX} requests: the rest is left out"));
        }
        trace
    }

    /// The requests of one file: its ids are those of one server.
    pub(super) fn add(&mut self, bytes: &[u8], wanted: &HashSet<u64>) {
        let mut traces: HashMap<u64, Trace> = HashMap::new();
        let mut models: HashSet<Rc<str>> = HashSet::new();
        self.skipped += objects(bytes, |object| {
            let Some(id) = object["id"].as_u64() else { return false };
            if traces.len() < REQUESTS_MAX || traces.contains_key(&id) {
                traces.entry(id).or_default().add(object, &mut models);
            }
            true
        });
        let mut found: Vec<Served> = traces
            .into_values()
            .filter(|trace| !trace.is_child && trace.stamps.span().is_some())
            .filter_map(|trace| {
                let request = trace.request.filter(|id| wanted.contains(id))?;
                let Trace { model, version, stamps, .. } = trace;
                Some(Served { request, model: model?, version, stamps })
            })
            .collect();
        found.truncate(REQUESTS_MAX - self.served.len());
        self.served.append(&mut found);
    }
}

/// What a file says of one of its ids.
#[derive(Debug, Default)]
struct Trace {
    request: Option<u64>,
    model: Option<Rc<str>>,
    version: String,
    /// A step of an ensemble, whose own request has the same id.
    is_child: bool,
    stamps: Stamps,
}

impl Trace {
    fn add(&mut self, object: &Value, models: &mut HashSet<Rc<str>>) {
        if let Some(name) = object["model_name"].as_str() {
            let model = models.get(name).cloned().unwrap_or_else(|| name.into());
            models.insert(Rc::clone(&model));
            self.model = Some(model);
            self.version = object["model_version"].to_string();
            self.is_child = object["parent_id"].as_u64().is_some_and(|parent| parent != 0);
            let id = &object["request_id"];
            self.request = id.as_u64().or_else(|| id.as_str()?.parse().ok());
        }
        for stamp in object["timestamps"].as_array().into_iter().flatten() {
            if let (Some(name), Some(ns)) = (stamp["name"].as_str(), stamp["ns"].as_u64()) {
                self.stamps.set(name, ns);
            }
        }
    }
}

/// FILE, then FILE.0, FILE.1, … as far as they exist.
fn files(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = |other: &Path| -> Option<u64> {
        let other = other.file_name()?.to_string_lossy();
        let digits = other.strip_prefix(&*name)?.strip_prefix('.')?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten();
    let mut numbered: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((number(&path)?, path))
        })
        .collect();
    numbered.sort();
    let itself = path.exists().then(|| path.to_owned());
    itself.into_iter().chain(numbered.into_iter().map(|(_, path)| path)).collect()
}

/// A whole file, if it is one and not too long.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let known = std::fs::metadata(path)?;
    if !known.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    // It may be growing.
    let read = File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > FILE_MAX {
        return Err(io::Error::other(format!(
            "it has {} MiB, and at most {} are read; with --trace-config \
             triton,log-frequency=10000 the server writes several files",
            known.len() >> 20,
            FILE_MAX >> 20
        )));
    }
    Ok(bytes)
}

/// Shows every object, wherever the array around it begins and ends, and counts the pieces
/// in between that are nothing. `each` says whether an object was one of the trace's.
fn objects(bytes: &[u8], mut each: impl FnMut(&Value) -> bool) -> u64 {
    let (mut at, mut skipped, mut is_damaged) = (0, 0, false);
    loop {
        let rest = &bytes[at..];
        let open = rest.iter().position(|byte| *byte == b'{').unwrap_or(rest.len());
        let is_separator = |byte: &u8| byte.is_ascii_whitespace() || b"[],".contains(byte);
        if !rest[..open].iter().all(is_separator) && !std::mem::replace(&mut is_damaged, true) {
            skipped += 1;
        }
        at += open;
        if at == bytes.len() {
            return skipped;
        }
        let mut stream = Deserializer::from_slice(&bytes[at..]).into_iter::<Value>();
        match stream.next() {
            Some(Ok(object)) => {
                at += stream.byte_offset();
                // Inside a damaged object there may be whole ones, which are not its like.
                is_damaged &= !each(&object);
            }
            _ => {
                at += 1;
                skipped += u64::from(!std::mem::replace(&mut is_damaged, true));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"[{"id":1,"timestamps":[{"name":"GRPC_WAITREAD_START","ns":5}]},
{"id":1,"timestamps":[{"name":"GRPC_WAITREAD_END","ns":90}]},{"id":1,"model_name":"yolo","model_version":3,"request_id":"77"},
{"id":1,"timestamps":[{"name":"REQUEST_START","ns":100},{"name":"QUEUE_START","ns":110}]},
{"id":2,"model_name":"other","model_version":1},{"id":2,"timestamps":[{"name":"REQUEST_START","ns":1}]},
{"id":1,"timestamps":[{"name":"COMPUTE_START","ns":120}]},{"id":1,"activity":"TENSOR_QUEUE_INPUT","tensor":{"name":"images"}},
{"id":1,"timestamps":[{"name":"COMPUTE_INPUT_END","ns":130}]},{"id":1,"timestamps":[{"name":"COMPUTE_OUTPUT_START","ns":150}]},
{"id":1,"timestamps":[{"name":"COMPUTE_END","ns":155}]},{"id":1,"timestamps":[{"name":"REQUEST_END","ns":190}]},
{"id":1,"timestamps":[{"name":"GRPC_SEND_START","ns":160}]},{"id":1,"timestamps":[{"name":"GRPC_SEND_END","ns":170}]}]"#;

    fn read(text: &str) -> ServerTrace {
        let mut trace = ServerTrace::default();
        trace.add(text.as_bytes(), &HashSet::from([77, 78]));
        trace
    }

    #[test]
    fn a_request_is_put_together_from_its_pieces() {
        let trace = read(WHOLE);
        assert_eq!((trace.served.len(), trace.skipped), (1, 0), "no id, no match: {trace:?}");
        let served = &trace.served[0];
        assert_eq!((served.request, &*served.model, &*served.version), (77, "yolo", "3"));
        assert_eq!(served.stamps.span(), Some((90, 160)), "{served:?}");
        let Stamps { queue_start, compute_start, input_end, output_start, compute_end, .. } =
            served.stamps;
        let stages = [queue_start, compute_start, input_end, output_start, compute_end];
        assert_eq!(stages, [110, 120, 130, 150, 155]);
    }

    /// Of one request with 4.9 MB to server 2.51, cut off where the next one began.
    const WRITTEN: &str = r#"[{"id":1,"model_name":"yolov8n","model_version":1,"request_id":"78"},{"id":1,"timestamps":[{"name":"REQUEST_START","ns":1035129668314}]},{"id":1,"timestamps":[{"name":"QUEUE_START","ns":1035129728387}]},{"id":1,"timestamps":[{"name":"COMPUTE_START","ns":1035129797105}]},{"id":1,"timestamps":[{"name":"COMPUTE_INPUT_END","ns":1035136570796}]},{"id":1,"timestamps":[{"name":"COMPUTE_OUTPUT_START","ns":1035334924968}]},{"id":1,"timestamps":[{"name":"COMPUTE_END","ns":1035341869328}]},{"id":1,"timestamps":[{"name":"REQUEST_END","ns":1035341894495}]},{"id":1,"timestamps":[{"name":"GRPC_WAITREAD_START","ns":1034775764778}]},{"id":1,"timestamps":[{"name":"GRPC_WAITREAD_END","ns":1035129566184}]},{"id":1,"timestamps":[{"name":"INFER_RESPONSE_COMPLETE","ns":1035337833741}]},{"id":1,"timestamps":[{"name":"GRPC_SEND_START","ns":1035337838900}]},{"id":1,"timestamps":[{"name":"GRPC_SEND_END","ns":1035341459983}]},"#;

    #[test]
    fn what_a_server_wrote_is_understood() {
        let trace = read(WRITTEN);
        assert_eq!((trace.served.len(), trace.skipped), (1, 0), "{trace:?}");
        let Served { request, stamps, .. } = &trace.served[0];
        assert_eq!(*request, 78);
        assert_eq!(stamps.span(), Some((1_035_129_566_184, 1_035_337_838_900)));
        assert_eq!(stamps.compute_end, 1_035_341_869_328, "after the answer was sent");
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_says_what_it_can() {
        let cut = &WHOLE[..WHOLE.len() - 20];
        let trace = read(cut);
        assert_eq!((trace.served.len(), trace.skipped), (1, 1), "{trace:?}");
        let other = r#"{"id":9,"model_name":"y","model_version":1,"request_id":"78"}
            {"id":9,"timestamps":[{"name":"REQUEST_START","ns":3},{"name":"REQUEST_END","ns":4}]}"#;
        let joined = format!("{cut}\n{{\"id\":3,\"timestamps\":[{{\"name\":\u{1}}},oh no\n{other}");
        let trace = read(&joined);
        assert_eq!((trace.served.len(), trace.skipped), (2, 1), "one hole: {trace:?}");
        assert_eq!(read("no trace at all").skipped, 1);
        assert_eq!(read("").skipped, 0);
        let deep = "{\"a\":".repeat(10_000);
        assert_eq!(read(&deep).skipped, 1);
        let backwards = WHOLE.replace("\"ns\":160", "\"ns\":16");
        assert!(read(&backwards).served.is_empty(), "it ends before it begins");
        let child = WHOLE.replace("\"request_id\"", "\"parent_id\":8,\"request_id\"");
        assert!(read(&child).served.is_empty(), "a step of an ensemble");
    }

    #[test]
    fn numbered_files_belong_to_it_and_a_missing_one_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server.json");
        let wanted = HashSet::from([77, 78]);
        let missing = ServerTrace::read(std::slice::from_ref(&path), &wanted);
        assert!(missing.notes[0].contains("log-frequency"), "{missing:?}");
        for (name, content) in
            [("server.json.0", WHOLE.to_owned()), ("server.json.10", WHOLE.replace("77", "78"))]
        {
            std::fs::write(folder.path().join(name), content).expect("written");
        }
        for name in ["server.json.bak", "server.jsonx.1"] {
            std::fs::write(folder.path().join(name), "other").expect("written");
        }
        std::fs::create_dir(folder.path().join("server.json.1")).expect("a folder");
        let trace = ServerTrace::read(std::slice::from_ref(&path), &wanted);
        let ids: Vec<u64> = trace.served.iter().map(|served| served.request).collect();
        assert_eq!((ids, trace.skipped), (vec![77, 78], 0));
        assert!(matches!(&trace.notes[..], [note] if note.contains("no file")), "{trace:?}");

        let long = File::create(&path).expect("created");
        long.set_len(FILE_MAX + 1).expect("a hole");
        let trace = ServerTrace::read(&[path], &wanted);
        assert!(trace.notes[0].contains("256"), "{:?}", trace.notes);
        assert_eq!(trace.served.len(), 2);
    }
}
