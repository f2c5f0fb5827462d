#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| framebus_tests::fuzz::ledger(data));
