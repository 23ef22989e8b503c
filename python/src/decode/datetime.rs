//! Dates and times to the classes of Python's datetime.
//!
//! Objects are made from the state that their classes pickle to: one argument instead of seven.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::Context;
use crate::errors;
use crate::objects::Dated;

const DAY: i64 = 86_400_000_000;
/// From 0001-01-01 to 2000-01-01, and to 9999-12-31.
const FIRST_DAY: i64 = -730_119;
const LAST_DAY: i64 = 2_921_939;

impl<'py> Context<'py> {
    pub(super) fn date(&self, days: i32) -> PyResult<Bound<'py, PyAny>> {
        match days {
            i32::MAX => return Err(self.infinite("date", "infinity")),
            i32::MIN => return Err(self.infinite("date", "-infinity")),
            _ => {}
        }
        // Whoever else holds them will not hold them for long, but this is for speed alone.
        let mut dates = self.objects.dates.try_lock().ok();
        let place = dates.as_mut().and_then(|dates| {
            let at = days.cast_unsigned() as usize & (dates.len() - 1);
            dates.get_mut(at)
        });
        if let Some(Some(known)) = &place {
            if known.day == days {
                return Ok(known.date.bind(self.py).clone());
            }
        }
        let (year, month, day) = self.civil(days.into(), "date")?;
        let [y0, y1] = year.to_be_bytes();
        let date = self.from_state(self.objects.date.bind(self.py), &[y0, y1, month, day], None)?;
        if let Some(place) = place {
            *place = Some(Dated { day: days, date: date.clone().unbind() });
        }
        Ok(date)
    }

    pub(super) fn timestamp(&self, micros: i64) -> PyResult<Bound<'py, PyAny>> {
        self.date_time(micros, "timestamp", None)
    }

    pub(super) fn timestamp_tz(&self, micros: i64) -> PyResult<Bound<'py, PyAny>> {
        match &self.time_zone {
            None => self.date_time(micros, "timestamptz", Some(self.objects.utc.bind(self.py))),
            // fromutc() wants the time in UTC, with the zone that it is to be in.
            Some(zone) => {
                let utc = self.date_time(micros, "timestamptz", Some(zone))?;
                zone.call_method1("fromutc", (utc,)).map_err(|_| self.out_of_range("timestamptz"))
            }
        }
    }

    fn date_time(
        &self,
        micros: i64,
        name: &str,
        zone: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match micros {
            i64::MAX => return Err(self.infinite(name, "infinity")),
            i64::MIN => return Err(self.infinite(name, "-infinity")),
            _ => {}
        }
        let (year, month, day) = self.civil(micros.div_euclid(DAY), name)?;
        let [y0, y1] = year.to_be_bytes();
        let [hour, minute, second, u0, u1, u2] = clock(micros.rem_euclid(DAY));
        let state = [y0, y1, month, day, hour, minute, second, u0, u1, u2];
        self.from_state(self.objects.datetime.bind(self.py), &state, zone)
    }

    pub(super) fn time(&self, micros: i64) -> PyResult<Bound<'py, PyAny>> {
        let state = self.clock(micros, "time")?;
        self.from_state(self.objects.time.bind(self.py), &state, None)
    }

    /// `zone` is in seconds west of Greenwich.
    pub(super) fn time_tz(&self, micros: i64, zone: i32) -> PyResult<Bound<'py, PyAny>> {
        let state = self.clock(micros, "timetz")?;
        let zone = if zone == 0 {
            self.objects.utc.bind(self.py).clone()
        } else {
            let offset = self.objects.timedelta.bind(self.py).call1((0, -i64::from(zone)))?;
            self.objects.timezone.bind(self.py).call1((offset,))?
        };
        self.from_state(self.objects.time.bind(self.py), &state, Some(&zone))
    }

    fn clock(&self, micros: i64, name: &str) -> PyResult<[u8; 6]> {
        if (0..DAY).contains(&micros) {
            return Ok(clock(micros));
        }
        if micros == DAY {
            return Err(errors::data(
                self.py,
                format!("{name} 24:00:00 cannot be a Python time; select it as text"),
            ));
        }
        Err(self.malformed())
    }

    /// Months count as 30 days and years as 365, as in psycopg.
    pub(super) fn interval(
        &self,
        micros: i64,
        days: i32,
        months: i32,
    ) -> PyResult<Bound<'py, PyAny>> {
        match (micros, days, months) {
            (i64::MAX, i32::MAX, i32::MAX) => return Err(self.infinite("interval", "infinity")),
            (i64::MIN, i32::MIN, i32::MIN) => return Err(self.infinite("interval", "-infinity")),
            _ => {}
        }
        let (years, months) = (i64::from(months / 12), i64::from(months % 12));
        let days = i64::from(days) + 365 * years + 30 * months;
        let timedelta = self.objects.timedelta.bind(self.py);
        let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        timedelta.call1((days, seconds, micros)).map_err(|_| self.out_of_range("interval"))
    }

    #[allow(clippy::wrong_self_convention)]
    fn from_state(
        &self,
        class: &Bound<'py, pyo3::types::PyType>,
        state: &[u8],
        zone: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = PyBytes::new(self.py, state);
        match zone {
            None => class.call1((state,)),
            Some(zone) => class.call1((state, zone)),
        }
    }

    /// Year, month and day of a day counted from 2000-01-01.
    fn civil(&self, days: i64, name: &str) -> PyResult<(u16, u8, u8)> {
        if (FIRST_DAY..=LAST_DAY).contains(&days) {
            Ok(civil(days))
        } else {
            Err(self.out_of_range(name))
        }
    }

    pub(super) fn infinite(&self, name: &str, value: &str) -> PyErr {
        errors::data(
            self.py,
            format!(
                "{name} {value} cannot be a Python object; select it as text, or use isfinite()"
            ),
        )
    }

    pub(super) fn out_of_range(&self, name: &str) -> PyErr {
        errors::data(
            self.py,
            format!("a {name} that is out of the range of Python's datetime; select it as text"),
        )
    }
}

/// Hour, minute, second and the three bytes of the microseconds.
fn clock(micros: i64) -> [u8; 6] {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let byte = |value: i64| value.to_be_bytes()[7];
    let [.., u0, u1, u2] = micros.to_be_bytes();
    [byte(seconds / 3600), byte(seconds / 60 % 60), byte(seconds % 60), u0, u1, u2]
}

/// Howard Hinnant's `civil_from_days`, for days from 2000-01-01. The callers keep to the years 1 to
/// 9999, in which everything is positive and fits 32 bits, whose divisions are cheap.
fn civil(days: i64) -> (u16, u8, u8) {
    let days = (days + 730_425) as u32;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    (year as u16, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::{FIRST_DAY, LAST_DAY, civil};

    #[test]
    fn knows_the_calendar() {
        assert_eq!(civil(0), (2000, 1, 1));
        assert_eq!(civil(59), (2000, 2, 29));
        assert_eq!(civil(-1), (1999, 12, 31));
        assert_eq!(civil(FIRST_DAY), (1, 1, 1));
        assert_eq!(civil(LAST_DAY), (9999, 12, 31));
    }
}
