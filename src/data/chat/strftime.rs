//! C's `strftime`.

use web_time::{SystemTime, UNIX_EPOCH};

/// Formats a time in UTC like C's `strftime` (the standard library has no local time). Directives that templates do not
/// use are left unchanged.
pub(crate) fn strftime(format: &str, time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        u64::from((year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + leap(year) {
        day -= 365 + leap(year);
        year += 1;
    }
    let (day_of_year, mut month) = (day + 1, 0);
    for length in [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let day = day + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = DAYS[((days + 4) % 7) as usize];

    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (unpadded, after) = after.strip_prefix('-').map_or((false, after), |after| (true, after));
        let two = |n: u64| if unpadded { n.to_string() } else { format!("{n:02}") };
        let Some(directive) = after.chars().next() else {
            out.push('%');
            rest = after;
            continue;
        };
        match directive {
            'Y' => out.push_str(&year.to_string()),
            'y' => out.push_str(&two(year % 100)),
            'm' => out.push_str(&two(month as u64 + 1)),
            'd' => out.push_str(&two(day)),
            'e' => out.push_str(&format!("{day:>2}")),
            'j' => {
                out.push_str(&if unpadded { day_of_year.to_string() } else { format!("{day_of_year:03}") })
            }
            'B' => out.push_str(MONTHS[month]),
            'b' | 'h' => out.push_str(&MONTHS[month][..3]),
            'A' => out.push_str(weekday),
            'a' => out.push_str(&weekday[..3]),
            'H' => out.push_str(&two(hour)),
            'I' => out.push_str(&two((hour + 11) % 12 + 1)),
            'M' => out.push_str(&two(minute)),
            'S' => out.push_str(&two(second)),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'F' => out.push_str(&format!("{year}-{:02}-{day:02}", month + 1)),
            'T' => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            'Z' => out.push_str("UTC"),
            'z' => out.push_str("+0000"),
            '%' => out.push('%'),
            other => {
                out.push('%');
                out.push(other);
            }
        }
        rest = &after[directive.len_utf8()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use web_time::Duration;

    use super::*;

    #[test]
    fn dates_are_formatted_as_by_strftime() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(strftime("%d %b %Y", at(951_827_696)), "29 Feb 2000");
        assert_eq!(
            strftime("%A %-d %B %y, %I:%M:%S %p, day %j", at(951_827_696)),
            "Tuesday 29 February 00, 12:34:56 PM, day 060"
        );
        assert_eq!(strftime("%F%T 100%% %q é%", at(1_735_689_599)), "2024-12-3123:59:59 100% %q é%");
    }
}
