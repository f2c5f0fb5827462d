//! Faults of the bus: subscribers that hold, never read, are too many or die; publishers
//! that lie; memory and disk that are full; files that somebody removes.

use framebus_bus::{Bus, BusError};
use framebus_client::{Client, json};
use framebus_tests::crash::CAMERA;
use framebus_tests::{
    Bystander, Process, Usage, World, binary, openvino, print_fault, shm_files, status, wait_row,
    wait_status, wait_until, with_shm,
};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const HOLD: &str = env!("CARGO_BIN_EXE_hold_sample");
const LIE: &str = env!("CARGO_BIN_EXE_hostile_publisher");

/// The camera of the fault, and a bystander.
fn two_cameras(world: &mut World) -> PathBuf {
    // Inference, the bystander, and one for the fault.
    world.bus = "frame_subscribers = 3".to_owned();
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "{CAMERA}"
        source = "test:red?width=320&height=192&fps=10"
        [[camera]]
        name = "near"
        source = "test:ball?width=320&height=192&fps=10"
        "#
    ))
}

/// Starts the two cameras; returns once both deliver.
fn start(world: &mut World) -> Process {
    let config = two_cameras(world);
    let up = world.up(&config);
    wait_status(world, CAMERA, "live", "", 60);
    up
}

fn helper(world: &World, name: &str, program: &str) -> Process {
    let root = world.root().display().to_string();
    world.start(name, Path::new(program), &[root.as_str(), world.instance()])
}

/// Capture and inference.
fn workers(world: &World) -> [u32; 3] {
    [
        &["framebus-capture", "--camera cam"][..],
        &["framebus-capture", "--camera near"],
        &["framebus-infer"],
    ]
    .map(|words| world.pid_of(words).unwrap_or_else(|| panic!("{words:?} does not run")))
}

fn stop(world: &World, up: &mut Process) {
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    world.assert_gone();
}

/// Nothing has grown, once what was there for those who look (`status`) is cleaned up.
fn assert_flat(before: Usage, pids: &[u32]) {
    for _ in 0..100 {
        if Usage::of(pids).fds <= before.fds {
            break;
        }
        #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Usage::assert_flat(before, Usage::of(pids));
}

fn names(world: &World) -> BTreeSet<String> {
    shm_files(&world.domain()).into_keys().collect()
}

#[test]
fn subscribers_that_hold_or_never_read_or_are_too_many_disturb_nobody() {
    if !openvino() {
        return;
    }
    let mut world = World::new();
    let mut up = start(&mut world);
    let near = Bystander::start(&world.domain(), "near");
    let (pids, files) = (workers(&world), names(&world));
    only_for_its_user(&world);

    let bus: Bus = Bus::open(&world.domain(), "test").expect("a bus");
    let never = bus.join_frames(CAMERA, "never-reads").expect("the second place");
    let mut before = None;
    for round in 0..3 {
        let mut holder = helper(&world, &format!("holder{round}"), HOLD);
        holder.wait_for_stdout("holding", 20);
        mapped_read_only(&world, holder.pid());
        let refused = bus.join_frames(CAMERA, "one-too-many").expect_err("all places are taken");
        assert!(matches!(refused, BusError::Full { .. }), "{refused}");
        assert!(refused.to_string().contains("bus.frame_subscribers"), "{refused}");
        holder.signal(Signal::KILL);
        assert_eq!(holder.wait(10).signal, Some(9));
        // The supervisor looks once a second.
        let back = wait_until("the place of the dead holder", 3, || {
            bus.join_frames(CAMERA, "after-it").ok()
        });
        drop(back);
        before.get_or_insert_with(|| Usage::of(&pids));
    }
    let rows = status(&world);
    let row = rows.iter().find(|row| row.kind == "camera" && row.name == CAMERA);
    assert_eq!(row.map(|row| row.state.as_str()), Some("live"), "{rows:?}");
    drop((never, bus));
    assert_eq!(workers(&world), pids, "somebody was restarted");
    assert_flat(before.unwrap_or_default(), &pids);
    assert!(near.finish() > 20);
    wait_until("the files of before in /dev/shm", 5, || {
        let more: Vec<String> = names(&world).difference(&files).cloned().collect();
        more.is_empty().then_some(())
    });
    stop(&world, &mut up);
}

/// Nobody but the user may look at pictures, results or the folder.
fn only_for_its_user(world: &World) {
    let mode = |path: &Path| std::fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    for name in names(world) {
        // One may be gone by now.
        let mode = mode(&Path::new("/dev/shm").join(&name)).unwrap_or(0);
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
    for folder in [world.root(), world.domain().folder()] {
        assert_eq!(mode(&folder).expect("there"), 0o700, "{}", folder.display());
    }
}

/// A subscriber that writes into a frame would die of SIGSEGV: its mappings of data
/// segments have no write permission.
fn mapped_read_only(world: &World, pid: u32) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let prefix = world.domain().shm_prefix().to_owned();
    let data: Vec<&str> =
        maps.lines().filter(|line| line.contains(&prefix) && line.contains(".data")).collect();
    assert!(!data.is_empty(), "no data segment in {maps}");
    assert!(data.iter().all(|line| line.contains(" r--s ")), "{data:#?}");
}

#[test]
fn publishers_that_lie_are_counted_and_break_nobody() {
    if !openvino() {
        return;
    }
    let mut world = World::new();
    let mut up = start(&mut world);
    let near = Bystander::start(&world.domain(), "near");
    let pids = workers(&world);
    let client = Client::connect_in(world.instance(), &world.root()).expect("it runs");
    let mut results = client.results().expect("results");
    let mut frames = client.frames(CAMERA).expect("frames");
    let config = world.path("framebus.toml").display().to_string();
    let mut tap = world.framebus("tap", &["tap", "--config", &config]);

    let mut liar = helper(&world, "liar", LIE);
    liar.wait_for_stdout("lying", 20);
    let (counted, after) = wait_row(&world, "bad headers", 10, |row| {
        row.kind == "infer-camera" && row.name == CAMERA && row.counters.contains_key("bad_headers")
    });
    print_fault("a publisher that lies", &counted, after);
    let before = Usage::of(&pids);
    wait_until("results of the liar", 10, || {
        while let Some(result) = results.poll().expect("the bus works") {
            assert!(!json::result(&result).to_string().is_empty());
        }
        while let Some(frame) = frames.poll().expect("the bus works") {
            assert!(frame.header().width > 0);
        }
        (results.bad_headers() > 100).then_some(())
    });
    assert!(liar.is_running(), "{}", liar.stderr());
    liar.signal(Signal::KILL);
    assert_eq!(liar.wait(10).signal, Some(9));
    wait_status(&world, CAMERA, "live", "", 5);
    assert!(tap.is_running(), "{}", tap.stderr());
    let printed = tap.stdout();
    assert!(!printed.contains('\u{1b}'), "an escape sequence reached the terminal");
    tap.signal(Signal::TERM);
    assert_eq!(tap.wait(10).code, Some(0));
    assert_eq!(workers(&world), pids, "somebody was restarted: {}", up.stderr());
    assert_flat(before, &pids);
    let said = up.stderr().lines().filter(|line| line.contains("sample skipped")).count();
    assert!(said < 60, "{said} lines about skipped samples: a flood fills the disk");
    assert!(near.finish() > 20);
    drop((results, frames, client));
    stop(&world, &mut up);
}

#[test]
fn a_full_dev_shm_or_disk_at_start_is_one_sentence() {
    let mut world = World::new();
    let config = two_cameras(&mut world);
    let program = binary("framebus");
    let args = ["up", "--config", &config.display().to_string()];
    for kib in [40, 3000] {
        let Some(mut command) = with_shm(kib) else { return };
        command.arg(&program).args(args).current_dir(world.folder());
        let exit = Process::start("up", world.folder(), command).wait(30);
        assert_eq!(exit.code, Some(69), "{exit:?}");
        assert!(exit.stderr.contains("/dev/shm has "), "{exit:?}");
        assert!(exit.stderr.contains("mount it larger"), "{exit:?}");
        assert_eq!(exit.stderr.lines().count(), 1, "{exit:?}");
        assert!(!world.domain().folder().exists(), "the folder was left behind");
    }
    // The disk of bus.root: a small file system that a file fills.
    let script = r#"mkdir -p "$1" && mount -t tmpfs -o size=64k none "$1" &&
        { head -c 65536 /dev/zero > "$1/full" || true; } && shift && exec "$@""#;
    let mut command = world.command(
        Path::new("unshare"),
        &["--mount", "--propagation", "private", "sh", "-c", script, "sh"],
    );
    command.arg(world.root()).arg(&program).args(args);
    let exit = Process::start("disk", world.folder(), command).wait(30);
    assert_eq!(exit.code, Some(69), "{exit:?}");
    let said = exit.stderr.contains("KiB and") || exit.stderr.contains("No space left on device");
    assert!(said && exit.stderr.contains(&world.root().display().to_string()), "{exit:?}");
    assert_eq!(exit.stderr.lines().count(), 1, "{exit:?}");
}

/// A camera whose pictures outgrow its segment, where /dev/shm has no room for a larger
/// one until somebody makes it.
#[test]
fn a_camera_that_outgrows_dev_shm_says_so_and_recovers() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let folder = world.path("pictures");
    std::fs::create_dir(&folder).expect("a folder");
    let picture = |name: &str, width, height| {
        let image = image::RgbImage::from_pixel(width, height, image::Rgb([200, 30, 30]));
        image.save(folder.join(name)).expect("a picture");
    };
    picture("a.png", 160, 96);
    picture("b.png", 160, 96);
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "cam"
        source = "file:{}"
        pace = "realtime"
        loop = true
        fps = 4
        [[camera]]
        name = "near"
        source = "test:ball?width=320&height=192&fps=10"
        "#,
        folder.display()
    ));
    // `up` itself refuses what is known at the start: the camera may have 1080p.
    let Some(mut command) = with_shm(250 * 1024) else { return };
    command.arg(binary("framebus")).args(["up", "--config"]).arg(&config);
    command.env("FRAMEBUS_TEST_WORLD", world.folder()).current_dir(world.folder());
    let mut up = Process::start("up", world.folder(), command);
    up.wait_for_stdout("camera near: live", 60);
    up.wait_for_stdout("camera cam: live", 10);
    let live = |up: &Process| up.stdout().matches("camera cam: live").count();
    let before = live(&up);
    // 4K: 14 samples of 32 MiB.
    picture("new.png", 3840, 2160);
    std::fs::rename(folder.join("new.png"), folder.join("b.png")).expect("replaced");
    let said = up.wait_for_stdout("MiB free, frames/cam needs", 15);
    let line = said.lines().find(|line| line.contains("frames/cam needs")).unwrap_or_default();
    assert!(line.starts_with("camera cam: "), "{line}");
    let room = format!("--mount=/proc/{}/ns/mnt", up.pid());
    let args = [&room, "mount", "-o", "remount,size=900m", "/dev/shm"];
    assert_eq!(world.start("room", Path::new("nsenter"), &args).wait(10).code, Some(0));
    wait_until("the camera to recover", 30, || (live(&up) > before).then_some(()));
    let said = up.stdout();
    let near = said.lines().filter(|line| line.starts_with("camera near: "));
    // How it starts, in one step or two, is no matter here.
    let near: Vec<&str> = near.skip_while(|line| line.contains(": starting")).collect();
    assert_eq!(near, ["camera near: live"]);
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    world.assert_ended();
}

#[test]
fn files_that_somebody_removes_are_missed_and_the_instance_ends_with_69() {
    if !openvino() {
        return;
    }
    let mut world = World::new();
    let mut up = start(&mut world);
    std::fs::remove_dir_all(world.root()).expect("removed");
    let exit = up.wait(15);
    assert_eq!(exit.code, Some(69), "{exit:?}");
    let last = exit.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("was removed while the instance ran"), "{exit:?}");
    world.assert_gone();
    // And comes back when it is started again.
    let config = world.path("framebus.toml");
    let mut again = world.up(&config);
    wait_status(&world, CAMERA, "live", "", 60);
    stop(&world, &mut again);
}
