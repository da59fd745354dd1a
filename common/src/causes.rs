//! An error with its causes in one line, nothing said twice.

use std::error::Error;
use std::fmt;

/// Shows an error and its causes, ": " between them. Many errors have their cause in their own text and in their chain;
/// a cause whose text was just said is left out.
#[derive(Debug, Clone, Copy)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Case {
        #[error("cannot listen at {at}: {source}; listenPort names another port")]
        Said { at: u16, source: io::Error },
        #[error("the broker does not start")]
        Unsaid { source: Box<Case> },
        #[error(transparent)]
        Passed(Box<Case>),
    }

    #[test]
    fn a_cause_is_said_once_however_errors_show_it() {
        let said = || Box::new(Case::Said { at: 7, source: io::Error::other("in use") });
        let once = "cannot listen at 7: in use; listenPort names another port";
        assert_eq!(Causes(&*said()).to_string(), once);
        assert_eq!(Causes(&Case::Passed(said())).to_string(), once);
        let chain = Case::Unsaid { source: Box::new(Case::Passed(said())) };
        assert_eq!(Causes(&chain).to_string(), format!("the broker does not start: {once}"));
    }
}
