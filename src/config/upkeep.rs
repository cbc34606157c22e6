//! What goes on beside the requests: the refresh of users, and the publication of generations.

use std::time::Duration;

use turret_actors::refresh::schedule::Schedule;
use turret_actors::rollout::RolloutSettings;
use turret_actors::rollout::verdict::WatchBounds;

use super::reader::Section;

pub(super) fn refresh(section: Section<'_>) -> Schedule {
    let minutes = section.integer("every_minutes", 0, 0..=10_080);
    let schedule = match section.text("daily_at") {
        Some(_) if minutes > 0 => {
            section.fault("every_minutes", "cannot stand beside daily_at");
            Schedule::OnCommand
        }
        Some(text) => match minute_of_day(text) {
            Some(minute) => Schedule::Daily { minute },
            None => {
                section.fault("daily_at", format_args!("`{text}` is not a time of day such as \"03:00\""));
                Schedule::OnCommand
            }
        },
        None if minutes > 0 => Schedule::Every(Duration::from_secs(60 * minutes as u64)),
        None => Schedule::OnCommand,
    };
    section.finish();
    schedule
}

pub(super) fn publish(section: Section<'_>) -> RolloutSettings {
    let settings = RolloutSettings {
        ads_change_max: section.number("ads_change_max", 0.5, 0.0..=1_000_000.0),
        probe_recall_min: section.number("probe_recall_min", 0.9, 0.0..=1.0),
        states_share_min: section.number("states_share_min", 0.95, 0.0..=1.0),
        shadow_requests: section.size("shadow_requests", 100, 0..=256),
        watch: Duration::from_secs(section.integer("watch_s", 600, 0..=86_400) as u64),
        bounds: WatchBounds {
            failed_rise_max: section.number("failed_rise_max", 0.02, 0.0..=1.0),
            empty_rise_max: section.number("empty_rise_max", 0.05, 0.0..=1.0),
            p99_ratio_max: section.number("p99_ratio_max", 2.0, 1.0..=1_000.0),
        },
    };
    section.finish();
    settings
}

/// Minutes after midnight, of hours and minutes.
fn minute_of_day(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| digits.parse().ok().filter(|_| digits.len() == 2 && !digits.starts_with('+'));
    let (hours, minutes): (u32, u32) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}
