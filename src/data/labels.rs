//! Labels as data writes them: a number, a name, or none at all.

use crate::error::{Error, Result};

/// The label of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    None,
    Number(u32),
    Name(String),
}

impl Label {
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "no `label`",
            Self::Number(_) => "a number as `label`",
            Self::Name(_) => "a name as `label`",
        }
    }
}

/// Labels that are all of one kind.
#[derive(Default)]
pub(super) struct Labels {
    labels: Vec<Label>,
    /// The first label that was met, and its line.
    first: Option<(Label, usize)>,
    /// All names, also those of samples that are not used: numbers must not depend on how many samples are.
    names: std::collections::BTreeSet<String>,
}

impl Labels {
    /// Notes the label of a line, without a sample.
    ///
    /// # Errors
    /// It is of another kind than the first.
    pub(super) fn meet(&mut self, label: &Label, line: usize, at: &str) -> Result<()> {
        let (first, begun) = self.first.get_or_insert_with(|| (label.clone(), line));
        let (first, here) = (first.kind(), label.kind());
        if first != here {
            return Err(Error::input(format!("line {line} of `{at}` has {here}, but line {begun} has {first}"))
                .hint("give every line a `label` of the same kind, or none"));
        }
        if let Label::Name(name) = label
            && !self.names.contains(name)
        {
            self.names.insert(name.clone());
        }
        Ok(())
    }

    /// Adds the label of the next sample.
    pub(super) fn push(&mut self, label: Label) {
        self.labels.push(label);
    }

    /// True if labels are names: all lines have to be met before these are numbers.
    pub(super) fn are_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// The numbers of the labels, if there are any, and the names of the numbers.
    pub(super) fn finish(self) -> (Option<Vec<u32>>, Vec<String>) {
        let classes: Vec<String> = self.names.into_iter().collect();
        let number = |label| match label {
            Label::None => None,
            Label::Number(number) => Some(number),
            Label::Name(name) => classes.binary_search(&name).ok().and_then(|at| u32::try_from(at).ok()),
        };
        (self.labels.into_iter().map(number).collect(), classes)
    }
}
