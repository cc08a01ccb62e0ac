//! Line charts as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 180.0;
/// Room for the labels at the left and at the bottom.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;

/// A line: its name, its class in the style sheet, and a value for each interval.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    pub(crate) values: Vec<Option<f64>>,
}

/// A moment that is marked.
pub(crate) struct Mark {
    /// Seconds since the beginning.
    pub(crate) at: f64,
    pub(crate) class: &'static str,
    pub(crate) what: String,
}

/// A chart over `seconds` of time.
pub(crate) fn chart(title: &str, unit: &str, seconds: f64, lines: &[Line<'_>], marks: &[Mark]) -> String {
    let max = lines
        .iter()
        .flat_map(|l| l.values.iter().flatten())
        .fold(0.0, |a: f64, b| a.max(*b));
    let max = if max > 0.0 { max } else { 1.0 };
    let x = |share: f64| LEFT + share * (WIDTH - LEFT - 4.0);
    let y = |value: f64| TOP + (1.0 - value / max) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<figure><figcaption>{} <small>{}</small>",
        escape(title),
        escape(unit)
    );
    for line in lines {
        push(
            &mut svg,
            format_args!(" <span class=\"key {}\">{}</span>", line.class, escape(line.name)),
        );
    }
    push(
        &mut svg,
        format_args!(
            "</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(title)
        ),
    );
    for share in [0.0, 0.5, 1.0] {
        let (at, value) = (y(max * share), max * share);
        push(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{WIDTH}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT - 6.0,
                at + 4.0,
                short(value)
            ),
        );
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let anchor = if share < 1.0 { "middle" } else { "end" };
        push(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{} s</text>\n",
                x(share),
                HEIGHT - 6.0,
                short(seconds * share)
            ),
        );
    }
    for mark in marks {
        let at = x((mark.at / seconds).clamp(0.0, 1.0));
        push(
            &mut svg,
            format_args!(
                "<line class=\"mark {}\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\"><title>{}</title></line>\n",
                mark.class,
                HEIGHT - BOTTOM,
                escape(&mark.what)
            ),
        );
    }
    for line in lines {
        let count = line.values.len().max(1) as f64;
        let mut points = String::new();
        for (i, value) in line.values.iter().enumerate() {
            if let Some(value) = value {
                push(
                    &mut points,
                    format_args!("{:.1},{:.1} ", x((i as f64 + 0.5) / count), y(*value)),
                );
            }
        }
        push(
            &mut svg,
            format_args!(
                "<polyline class=\"{}\" points=\"{}\"/>\n",
                line.class,
                points.trim_end()
            ),
        );
    }
    svg.push_str("</svg></figure>\n");
    svg
}

/// A number with three digits, and k, M or G.
fn short(n: f64) -> String {
    let (n, unit) = match n {
        n if n >= 1e9 => (n / 1e9, "G"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e4 => (n / 1e3, "k"),
        n => (n, ""),
    };
    let digits = match n {
        n if n >= 100.0 || n == 0.0 => 0,
        n if n >= 10.0 => 1,
        n if n >= 1.0 => 2,
        _ => 4,
    };
    format!("{n:.digits$}{unit}")
}

/// A text as HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("writing to a String never fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_lines_and_marks() {
        let line = Line {
            name: "a<b",
            class: "ok",
            values: vec![Some(0.0), None, Some(2.0)],
        };
        let mark = Mark {
            at: 5.0,
            class: "fault",
            what: "\"kill\"".to_owned(),
        };
        let svg = chart("t", "u", 10.0, &[line], &[mark]);
        assert!(svg.contains("points=\"207.7,158.0 758.3,8.0\""), "{svg}");
        assert!(
            svg.contains("a&lt;b") && svg.contains("<title>&quot;kill&quot;</title>"),
            "{svg}"
        );
        assert!(svg.contains("x1=\"483.0\""), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.25, 2.5, 99.9, 1234.0, 12_345.0, 1e6, 2.5e9].map(short);
        assert_eq!(
            texts,
            ["0", "0.2500", "2.50", "99.9", "1234", "12.3k", "1.00M", "2.50G"]
        );
    }
}
