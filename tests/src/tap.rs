//! Reads the Test Anything Protocol.

/// What a guest reported.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Points that are ok, skipped ones too.
    pub passed: usize,
    /// Lines of points that are not ok.
    pub failures: Vec<String>,
    /// Points that the plan tells.
    pub planned: Option<usize>,
    /// Lines that begin with `# `: what was measured.
    pub notes: Vec<String>,
}

/// Reads a guest's lines.
pub fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Report {
    let mut report = Report::default();
    for line in lines {
        if line.starts_with("ok ") {
            report.passed += 1;
        } else if line.starts_with("not ok ") {
            report.failures.push(line.to_string());
        } else if let Some(plan) = line.strip_prefix("1..") {
            report.planned = plan.parse().ok();
        } else if let Some(note) = line.strip_prefix("# ") {
            // A note after a failure tells what was wrong.
            report.notes.push(note.to_string());
        }
    }
    report
}
