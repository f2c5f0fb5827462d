//! Takes one frame, keeps it for 200 ms, takes the next.

use framebus_tests::crash::{CAMERA, end, join};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    end(read())
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
#[allow(clippy::disallowed_methods, reason = "being slow is its purpose")]
fn read() -> anyhow::Result<()> {
    let bus = join("slow_reader")?;
    let subscriber = bus.join_frames(CAMERA, "slow")?;
    println!("reading");
    loop {
        let _woken = subscriber.waker().wait(Duration::from_secs(1))?;
        if let Some(frame) = subscriber.receive()? {
            let sequence = frame.header().sequence;
            std::thread::sleep(Duration::from_millis(200));
            let (luma, _) = frame.plane(0);
            anyhow::ensure!(
                luma.iter().all(|&byte| byte == sequence as u8),
                "frame {sequence} changed while it was held"
            );
            println!("frame {sequence}");
        }
    }
}
