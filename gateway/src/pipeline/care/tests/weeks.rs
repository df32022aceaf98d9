//! Simulated weeks: lives with habits, restarts, dead sensors and jumping clocks; what is raised must be true.

use fastrand::Rng;

use super::*;

/// An ordinary day of somebody at home: water, door and motion at irregular hours, never longer than ten hours apart.
fn day(site: &mut Site, rng: &mut Rng) {
    let end = site.real_ms + DAY;
    while site.real_ms < end {
        site.wait(rng.u64(10 * MINUTE..=8 * HOUR));
        act(site, rng);
    }
}

fn act(site: &mut Site, rng: &mut Rng) {
    match rng.u8(0..4) {
        0 => site.water(0.015 + rng.f64() * 0.1),
        1 => {
            site.value("motion", "occupancy", Value::Bool(true));
            site.wait(3 * MINUTE);
            site.value("motion", "occupancy", Value::Bool(false));
        }
        _ => {
            // Through the door and back, seen inside afterwards.
            site.event("door", "contact.opened");
            site.wait(rng.u64(MINUTE..=90 * MINUTE));
            site.water(0.02);
        }
    }
}

fn trouble(site: &mut Site, rng: &mut Rng) {
    let year = 365 * i64::try_from(DAY).unwrap();
    match rng.u8(0..6) {
        0 => site.restart(rng.u64(1_000..=10 * MINUTE), false),
        1 => site.restart(rng.u64(MINUTE..=9 * HOUR), true),
        2 => site.jump_wall(if rng.bool() { year } else { -year }),
        3 => {
            let id = *rng.choice(&["meter", "motion", "door"]).unwrap();
            site.mute(id);
            site.wait(rng.u64(HOUR..=30 * HOUR));
            site.unmute(id);
        }
        _ => {}
    }
}

fn raised<'a>(site: &'a Site, rule: &str) -> Vec<&'a Told> {
    site.told.iter().filter(|(_, what)| what.starts_with(&format!("raise {rule} "))).collect()
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = fastrand::u64(..);
    println!("first seed {first}");
    (0..8).map(move |number| first.wrapping_add(number))
}

#[test]
fn whoever_lives_is_never_missed() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let mut site = Site::new(household(""));
        for _ in 0..21 {
            day(&mut site, &mut rng);
            trouble(&mut site, &mut rng);
            // Whatever happened to the box, the person goes on.
            act(&mut site, &mut rng);
        }
        assert!(raised(&site, "care-inactivity").is_empty(), "seed {seed}: {:?}", site.told);
    }
}

#[test]
fn whoever_stops_is_missed_once_whatever_happens_to_the_box() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let mut site = Site::new(household(""));
        for _ in 0..3 {
            day(&mut site, &mut rng);
        }
        site.water(0.05);
        site.told.clear();
        let stopped = site.real_ms;
        // Two restarts and a jump of a year on the way.
        let mut unseen = 0;
        for number in 0..3 {
            site.wait(rng.u64(2 * HOUR..=6 * HOUR));
            let off = rng.u64(20 * MINUTE..=3 * HOUR);
            if number == 1 {
                site.jump_wall(365 * i64::try_from(DAY).unwrap());
            } else {
                unseen += off;
                site.restart(off, number == 2);
            }
        }
        site.wait(4 * DAY);
        let raised = raised(&site, "care-inactivity");
        assert_eq!(raised.len(), 1, "seed {seed}: {:?}", site.told);
        let due = (stopped + DAY + unseen) / MINUTE;
        let (minute, _) = raised[0];
        assert!(
            minute.abs_diff(due) <= 45,
            "seed {seed}: raised at minute {minute}, due at {due}: {:?}",
            site.told
        );
    }
}

#[test]
fn a_restart_at_any_moment_changes_nothing() {
    for seed in seeds() {
        let run = |restarts: bool| {
            let mut rng = Rng::with_seed(seed);
            let mut site = Site::new(household(""));
            for _ in 0..5 {
                day(&mut site, &mut rng);
                if restarts {
                    site.restart(0, false);
                }
                site.wait(rng.u64(0..=40 * HOUR));
                if restarts {
                    site.restart(0, false);
                }
                act(&mut site, &mut rng);
            }
            site.told
        };
        assert_eq!(run(false), run(true), "seed {seed}");
    }
}
