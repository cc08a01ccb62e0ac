//! Durations of ISO 8601, as Java's `Duration` reads them.

/// Whether the text is a non-negative ISO 8601 duration that Java's `Duration` accepts (`P2DT3H4M5.6S`).
pub(super) fn is_duration(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some(rest) = text.strip_prefix('+').unwrap_or(&text).strip_prefix('P') else {
        return false;
    };
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (rest, None),
    };
    let number = |s: &str| !s.is_empty() && s.len() <= 18 && s.bytes().all(|b| b.is_ascii_digit());
    let day = days.strip_suffix('D').is_some_and(number);
    match time {
        None => day,
        Some(time) if day || days.is_empty() => is_time(time),
        Some(_) => false,
    }
}

/// Hours, minutes and seconds, in this order; at least one of them.
fn is_time(mut rest: &str) -> bool {
    if rest.is_empty() {
        return false;
    }
    for unit in ['H', 'M', 'S'] {
        let Some((number, behind)) = rest.split_once(unit) else {
            continue;
        };
        let (whole, part) = match number.split_once('.') {
            Some((whole, part)) if unit == 'S' => (whole, part),
            _ => (number, ""),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 || part.len() > 9 || !digits(whole) || !digits(part) {
            return false;
        }
        rest = behind;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_javas() {
        for good in ["PT1H", "P1D", "P1DT1S", "PT1H2M3.5S", "pt0s", "PT3.S", "+PT1M"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in [
            "", "P", "PT", "P1DT", "PT1", "1H", "PTxH", "P1H", "PT1S1H", "PT1.5H", "-PT1H", "P1W",
        ] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
