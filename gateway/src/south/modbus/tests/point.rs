//! Numbers in every width and order, contacts, loops; NaN and what is out of range.

use proptest::prelude::*;

use super::*;

/// A point by its keys.
fn reading(keys: &str) -> Reading {
    let text = format!("kind = 'x'\ntitle = {{ zh = 'x', en = 'x' }}\n[modbus]\n[points.p]\n{keys}\n");
    let profile: Profile = toml::from_str(&text).unwrap();
    assert_eq!(profile.problems(), [], "{keys}");
    readings(&profile, profile.modbus.as_ref().unwrap(), 0).remove(0)
}

fn words(keys: &str, words: &[u16]) -> Said {
    reading(&format!("input = 0\n{keys}")).decode(Raw::Words(words), None)
}

fn int(whole: i64) -> Said {
    Said::Value(Value::Int(whole))
}

#[test]
fn numbers_in_every_width_and_order() {
    assert_eq!(words("", &[65_535]), int(65_535));
    assert_eq!(words("type = 'i16'", &[65_535]), int(-1));
    assert_eq!(words("word_order = 'BADC'", &[0x1234]), int(0x3412));
    for (order, registers) in [
        ("ABCD", [0x1234_u16, 0x5678]),
        ("CDAB", [0x5678, 0x1234]),
        ("BADC", [0x3412, 0x7856]),
        ("DCBA", [0x7856, 0x3412]),
    ] {
        let keys = format!("type = 'u32'\nword_order = '{order}'");
        assert_eq!(words(&keys, &registers), int(0x1234_5678), "{order}");
    }
    assert_eq!(words("type = 'i32'", &[0xffff, 0xfffe]), int(-2));
    assert_eq!(words("type = 'i64'", &[0xffff, 0xffff, 0xffff, 0xfffd]), int(-3));
    assert_eq!(words("type = 'u64'\nword_order = 'CDAB'", &[4, 3, 2, 1]), int(0x0001_0002_0003_0004));
    assert_eq!(words("type = 'f32'", &[0x41b4, 0x0000]), Said::Value(Value::Float(22.5)));
    assert_eq!(words("type = 'f64'", &[0x4036, 0x8000, 0, 0]), Said::Value(Value::Float(22.5)));
    assert_eq!(words("type = 'i16'\nscale = 0.5\noffset = -40.0", &[100]), Said::Value(Value::Float(10.0)));
}

#[test]
fn what_is_no_value_says_why() {
    let nothing = |said| match said {
        Said::Nothing { quality, reason } => (quality, reason),
        said => panic!("{said:?}"),
    };
    let nan = nothing(words("type = 'f32'", &[0x7fc0, 0]));
    assert_eq!(nan, (QualityReason::NotFinite, Refusal::NotFinite));
    assert_eq!(nothing(words("type = 'f32'", &[0xff80, 0])).1, Refusal::NotFinite);
    assert_eq!(nothing(words("max = 100", &[101])), (QualityReason::OutOfRange, Refusal::OutOfRange));
    assert_eq!(nothing(words("type = 'u64'", &[0x8000, 0, 0, 0])).1, Refusal::OutOfRange);
}

#[test]
fn contacts_are_normally_open_or_closed() {
    let flag = |keys: &str, raw| reading(keys).decode(raw, None);
    let on = |on| Said::Value(Value::Bool(on));
    assert_eq!(flag("discrete = 0\ncontact = 'no'", Raw::Bits(&[true])), on(true));
    assert_eq!(flag("discrete = 0\ncontact = 'nc'", Raw::Bits(&[true])), on(false));
    assert_eq!(flag("coil = 0", Raw::Bits(&[false])), on(false));
    assert_eq!(flag("holding = 0\nbit = 15", Raw::Words(&[0x8000])), on(true));
    assert_eq!(flag("holding = 0\nbit = 14\ncontact = 'nc'", Raw::Words(&[0x8000])), on(true));
    assert_eq!(flag("input = 0\ntype = 'bool'", Raw::Words(&[7])), on(true));
}

#[test]
fn a_loop_has_four_states_and_hysteresis() {
    let keys = "input = 0\nbands = { normal = [4000, 6500], active = [1500, 3500], open = [9000, 65535], \
                short = [0, 500], hysteresis = 200 }";
    let reading = reading(keys);
    let said = |word: u16, before| reading.decode(Raw::Words(&[word]), before);
    for (word, state) in [
        (5_000, Loop::Normal),
        (2_000, Loop::Active),
        (0, Loop::Short),
        (500, Loop::Short),
        (60_000, Loop::Open),
    ] {
        assert_eq!(said(word, None), Said::Loop(state), "{word}");
    }
    assert_eq!(said(3_600, Some(Loop::Active)), Said::Loop(Loop::Active), "within the hysteresis");
    assert!(matches!(said(3_600, Some(Loop::Normal)), Said::Nothing { reason: Refusal::BetweenBands, .. }));
    assert!(matches!(said(3_750, Some(Loop::Active)), Said::Nothing { .. }));
}

#[test]
fn outputs_are_written_as_they_are_read() {
    let coil = reading("coil = 3\nwrite = true");
    assert_eq!(coil.write(&Value::Bool(true)), Ok(Request::WriteCoil { at: 3, on: true }));
    assert_eq!(coil.write(&Value::Int(1)), Err(Refusal::WrongType));
    let inverted = reading("coil = 3\nwrite = true\ncontact = 'nc'");
    assert_eq!(inverted.write(&Value::Bool(true)), Ok(Request::WriteCoil { at: 3, on: false }));
    let volume = reading("holding = 9\nscale = 0.1\nmin = 0\nmax = 100\nwrite = true");
    assert_eq!(volume.write(&Value::Float(12.3)), Ok(Request::WriteRegister { at: 9, word: 123 }));
    assert_eq!(volume.write(&Value::Float(100.5)), Err(Refusal::OutOfRange));
    assert_eq!(volume.write(&Value::Float(f64::NAN)), Err(Refusal::NotFinite));
    let wide = reading("holding = 9\ntype = 'u32'\nword_order = 'CDAB'\nwrite = true");
    let expected = Request::WriteRegisters { at: 9, words: vec![0x5678, 0x1234] };
    assert_eq!(wide.write(&Value::Int(0x1234_5678)), Ok(expected));
    assert_eq!(wide.write(&Value::Int(-1)), Err(Refusal::OutOfRange));
}

proptest! {
    #[test]
    fn no_registers_make_a_value_that_is_no_number(
        kind in prop::sample::select(vec!["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]),
        order in prop::sample::select(vec!["ABCD", "CDAB", "BADC", "DCBA"]),
        scale in prop::option::of(-1e300_f64..1e300),
        registers in prop::collection::vec(any::<u16>(), 4),
    ) {
        let wide = !kind.ends_with("16") || matches!(order, "BADC" | "DCBA");
        let order = if wide { format!("word_order = '{order}'\n") } else { String::new() };
        let scale = scale.filter(|s| s.is_normal()).map_or(String::new(), |s| format!("scale = {s:?}\n"));
        let reading = reading(&format!("input = 0\ntype = '{kind}'\n{order}{scale}"));
        let count = usize::from(reading.count);
        if let Said::Value(value) = reading.decode(Raw::Words(&registers[..count]), None) {
            prop_assert!(float(&value).is_finite());
        }
        // Too few or too many are never a value.
        let wrong = if count == 4 { &registers[..3] } else { &registers[..=count] };
        let refused = matches!(reading.decode(Raw::Words(wrong), None), Said::Nothing { .. });
        prop_assert!(refused);
    }

    /// What is written reads back the same, in every order.
    #[test]
    fn a_written_number_reads_back(
        kind in prop::sample::select(vec!["u32", "i32", "u64", "i64"]),
        order in prop::sample::select(vec!["ABCD", "CDAB", "BADC", "DCBA"]),
        whole in 0_i64..0x7fff_ffff,
    ) {
        let reading = reading(&format!("holding = 0\ntype = '{kind}'\nword_order = '{order}'\nwrite = true"));
        let Ok(Request::WriteRegisters { words, .. }) = reading.write(&Value::Int(whole)) else {
            return Err(TestCaseError::fail("no registers"));
        };
        prop_assert_eq!(reading.decode(Raw::Words(&words), None), Said::Value(Value::Int(whole)));
    }
}
