//! Times by the calendar, in UTC.

const DAY: i64 = 24 * 60 * 60 * 1000;
/// Days of 400 years. Those eras are alike.
const ERA_DAYS: i64 = 146_097;
/// From the first of March of year 0, with which the first era begins, to 1970.
const DAYS_TO_1970: i64 = 719_468;

/// A time by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CalendarTime {
    pub year: i64,
    /// From 1 on.
    pub month: i64,
    /// From 1 on.
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub millis: i64,
}

impl CalendarTime {
    /// The time that lies this many milliseconds after the beginning of 1970.
    pub fn of(since_1970: i64) -> Self {
        let (days, in_day) = (since_1970.div_euclid(DAY), since_1970.rem_euclid(DAY));
        // Years begin in March: leap days then come last in a year, and months follow a 153-day rhythm.
        let shifted = days + DAYS_TO_1970;
        let (era, day_of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1000 % 60,
            millis: in_day % 1000,
        }
    }

    /// Milliseconds since 1970; `None` if the calendar has no such time. For years with few digits.
    pub fn since_1970(self) -> Option<i64> {
        let year = self.year - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let day_of_year = (153 * from_march + 2) / 5 + self.day - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * ERA_DAYS + day_of_era - DAYS_TO_1970;
        let seconds = ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second;
        let since_1970 = seconds * 1000 + self.millis;
        // A thirteenth month or a sixtieth minute comes back as something else.
        (Self::of(since_1970) == self).then_some(since_1970)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i64, month: i64, day: i64) -> CalendarTime {
        CalendarTime { year, month, day, hour: 0, minute: 0, second: 0, millis: 0 }
    }

    #[test]
    fn times_and_milliseconds_are_each_others() {
        let late = CalendarTime { hour: 23, minute: 59, second: 59, millis: 999, ..at(1969, 12, 31) };
        for (since_1970, time) in [
            (0, at(1970, 1, 1)),
            (-1, late),
            (951_782_400_000, at(2000, 2, 29)),
            (951_868_800_000, at(2000, 3, 1)),
            (4_107_542_399_000, CalendarTime { hour: 23, minute: 59, second: 59, ..at(2100, 2, 28) }),
            (-62_167_219_200_000, at(0, 1, 1)),
        ] {
            assert_eq!((CalendarTime::of(since_1970), time.since_1970()), (time, Some(since_1970)));
        }
    }

    #[test]
    fn what_the_calendar_does_not_have_is_no_time() {
        for time in [
            at(2026, 0, 1),
            at(2026, 13, 1),
            at(2026, 4, 31),
            at(2025, 2, 29),
            at(2100, 2, 29),
            at(2026, 1, 0),
            CalendarTime { hour: 24, ..at(2026, 1, 1) },
            CalendarTime { minute: 60, ..at(2026, 1, 1) },
            CalendarTime { second: 60, ..at(2026, 1, 1) },
        ] {
            assert_eq!(time.since_1970(), None, "{time:?}");
        }
    }
}
