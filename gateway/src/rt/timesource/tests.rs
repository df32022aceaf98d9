//! Files as the kernel and timesyncd leave them, and a chrony that answers from its fixtures.

use std::fs;
use std::time::SystemTime;

use super::*;

const SYNCED: &[u8] = include_bytes!("../../../tests/fixtures/time/chrony-tracking-synced.bin");
const TIMESYNCD: &str = include_str!("../../../tests/fixtures/time/timesyncd-synchronized.txt");
const RTC: &str = include_str!("../../../tests/fixtures/time/rtc-since-epoch.txt");

const AT: Reading = Reading { mono_ms: 10_000, wall_ms: 1_795_327_200_000 };

fn places(dir: &Path) -> Places {
    Places {
        timesyncd: dir.join("synchronized"),
        chrony_run: dir.join("chrony"),
        chrony: SocketAddr::from(([127, 0, 0, 1], 9)),
        rtc: dir.join("rtc"),
        vouched: false,
        guest_without_rtc: false,
    }
}

fn rtc(dir: &Path, name: &str, since_epoch: &str, hctosys: &str) {
    let rtc = dir.join("rtc").join(name);
    fs::create_dir_all(&rtc).unwrap();
    fs::write(rtc.join("since_epoch"), since_epoch).unwrap();
    fs::write(rtc.join("hctosys"), hctosys).unwrap();
}

#[test]
fn timesyncds_mark_tells_by_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    assert_eq!(places.read(AT).ntp, None);
    fs::write(&places.timesyncd, "").unwrap();
    let at_ms: i64 = TIMESYNCD.trim().parse().unwrap();
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap());
    fs::File::options().write(true).open(&places.timesyncd).unwrap().set_modified(at).unwrap();
    assert_eq!(places.read(AT).ntp, Some(NtpMark { source: ClockSource::Timesyncd, wall_ms: at_ms }));
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
    fs::File::options().write(true).open(&places.timesyncd).unwrap().set_modified(before).unwrap();
    assert_eq!(places.read(AT).ntp, None, "touched before 1970");
}

#[test]
fn the_battery_clock_that_set_the_machines_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = places(dir.path());
    assert_eq!(places.read(AT).battery, Battery::Absent);
    places.guest_without_rtc = true;
    assert_eq!(places.read(AT).battery, Battery::Hosted);
    rtc(dir.path(), "rtc0", "946684800\n", "0\n");
    rtc(dir.path(), "rtc1", RTC, "1\n");
    let seconds: i64 = RTC.trim().parse().unwrap();
    assert_eq!(places.read(AT).battery, Battery::Tells { offset_ms: seconds * 1_000 + 500 - 10_000 });
    rtc(dir.path(), "rtc1", "no number", "1");
    assert_eq!(places.read(AT).battery, Battery::Tells { offset_ms: 946_684_800_500 - 10_000 }, "the other");
    rtc(dir.path(), "rtc0", "9223372036854775807", "0");
    assert_eq!(places.read(AT).battery, Battery::Absent, "none that can be read");
    places.vouched = true;
    assert_eq!(places.read(AT).battery, Battery::Hosted);
}

#[tokio::test]
async fn chrony_is_asked_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let chrony = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let places = Places { chrony: chrony.local_addr().unwrap(), ..places(dir.path()) };
    assert_eq!(Sources::new(places.clone()).evidence(AT).await.ntp, None, "no chrony here");
    fs::create_dir(&places.chrony_run).unwrap();
    let answer = async {
        let mut question = [0; 256];
        let (length, from) = chrony.recv_from(&mut question).await.unwrap();
        assert_eq!(length, chrony::PACKET_BYTES, "else chrony does not answer");
        let mut packet = SYNCED.to_vec();
        packet[16..20].copy_from_slice(&question[8..12]);
        chrony.send_to(&packet, from).await.unwrap();
    };
    let mut sources = Sources::new(places.clone());
    let (evidence, ()) = tokio::join!(sources.evidence(AT), answer);
    let mark = evidence.ntp.unwrap();
    assert_eq!(mark.source, ClockSource::Chrony);
    assert_eq!(mark.wall_ms / 1_000, 0x6b02_834d);
    assert_eq!(sources.evidence(AT).await.ntp, Some(mark), "not asked each second");
    // One that is gone, or says nothing, costs half a second and is no NTP.
    drop(chrony);
    assert_eq!(Sources::new(places).evidence(AT).await.ntp, None);
}
