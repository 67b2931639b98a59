//! `strftime_now`: the present time in Python's format, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, seconds)
}

/// `format` for a time in seconds since 1970.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let name = |names: &[&'static str], place: u64| names.get(place as usize).copied().unwrap_or_default();
    let short = |name: &'static str| name.get(..3).unwrap_or(name);
    let (month_name, weekday) = (name(&MONTHS, month - 1), name(&WEEKDAYS, (days + 4) % 7));
    let half = match hour % 12 {
        0 => 12,
        other => other,
    };
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut code = letters.next();
        let padded = code != Some('-');
        if !padded {
            code = letters.next();
        }
        let two = |number: u64| if padded { format!("{number:02}") } else { number.to_string() };
        text += &match code {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('H') => two(hour),
            Some('I') => two(half),
            Some('M') => two(minute),
            Some('S') => two(second % 60),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b') => short(month_name).to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => short(weekday).to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let code = other.map_or_else(String::new, String::from);
                return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: %{code} is not known")));
            }
        };
    }
    Ok(text)
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_pythons() {
        // datetime.fromtimestamp(n, timezone.utc).strftime(...) of CPython 3.11
        let format = "%a %A %d %-d %b %B %m %Y %y %H:%M:%S %I %p %%";
        for (seconds, expected) in [
            (0, "Thu Thursday 01 1 Jan January 01 1970 70 00:00:00 12 AM %"),
            (951_782_399, "Mon Monday 28 28 Feb February 02 2000 00 23:59:59 11 PM %"),
            (951_782_400, "Tue Tuesday 29 29 Feb February 02 2000 00 00:00:00 12 AM %"),
            (4_107_542_399, "Sun Sunday 28 28 Feb February 02 2100 00 23:59:59 11 PM %"),
            (1_767_182_645, "Wed Wednesday 31 31 Dec December 12 2025 25 12:04:05 12 PM %"),
        ] {
            assert_eq!(strftime(format, seconds).unwrap(), expected);
        }
        assert!(strftime("%Q", 0).unwrap_err().to_string().contains("%Q is not known"));
        assert!(strftime("%", 0).is_err());
    }
}
