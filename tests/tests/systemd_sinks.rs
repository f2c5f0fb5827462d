//! What the generator of the systemd units makes of sinks.

use framebus_tests::{binary, repository, skip};
use std::process::Command;

const HEAD: &str = "[model]\npath = \"/m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n";

#[test]
fn sinks_get_a_network_only_where_their_kind_needs_one() {
    let kinds = [
        "kind = \"jsonl\"\n",
        "kind = \"mqtt\"\nurl = \"mqtt://127.0.0.1\"\nspool = \"/srv/50 % full\"\n",
        "kind = \"webhook\"\nurl = \"https://a.example/x\"\n",
        "kind = \"zenoh\"\nurl = \"tcp://127.0.0.1\"\n",
        "kind = \"web\"\ntoken = \"0123456789abcdef\"\n",
        "kind = \"mqtt\"\nurl = \"mqtt://127.0.0.1\"\nenabled = false\n",
        "kind = \"otlp\"\n",
        "kind = \"history\"\npath = \"/var/lib/framebus/history.db\"\n",
    ];
    let sinks: String = (0..)
        .zip(kinds)
        .map(|(number, kind)| format!("[[sink]]\nname = \"s{number}\"\n{kind}"))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("framebus.toml");
    std::fs::write(&file, format!("{HEAD}{sinks}")).expect("written");
    let made = Command::new(binary("framebus"))
        .args(["systemd", "generate", "--config"])
        .arg(&file)
        .arg(folder.path())
        .status();
    assert!(made.expect("runs").success());
    let text = |number: usize| {
        let name = format!("framebus-sink@s{number}.service.d/network.conf");
        std::fs::read_to_string(folder.path().join(name)).unwrap_or_default()
    };
    let has = |number| text(number).contains("[Service]\nPrivateNetwork=no\n");
    let all = [0, 1, 2, 3, 4, 5, 6, 7].map(has);
    assert_eq!(all, [false, true, true, true, true, false, true, false]);
    assert!(text(1).contains("ReadWritePaths=\"-/srv/50 %% full\"\n"), "{}", text(1));
    assert!(!text(2).contains("ReadWritePaths"), "{}", text(2));
    // systemd reads them together with the unit; programs are where they were built.
    let unit = repository().join("deploy/systemd/framebus-sink@.service");
    let unit = std::fs::read_to_string(unit).expect("readable");
    let built = binary("framebus");
    let built = built.parent().expect("in a folder").display().to_string();
    let unit = unit.replace("=/usr/bin/framebus", &format!("={built}/framebus"));
    std::fs::write(folder.path().join("framebus-sink@.service"), unit).expect("written");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no", "--no-pager"])
        .arg(folder.path().join("framebus-sink@s1.service"))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
        .output();
    let Ok(output) = output else {
        skip("systemd-analyze is missing; the package systemd has it");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
