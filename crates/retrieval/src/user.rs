//! What is known of a user besides events.

use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// The oldest age accepted, in years.
pub const AGE_MAX: u8 = 120;

/// Age, country and gender; each may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demographics {
    /// In years, 0..=[`AGE_MAX`].
    #[serde(default)]
    pub age: Option<u8>,
    /// As the data set writes it, at most 16 bytes; ISO 3166 alpha-2 by preference.
    #[serde(default)]
    pub country: Option<Box<str>>,
    /// As the data set writes it, at most 16 bytes.
    #[serde(default)]
    pub gender: Option<Box<str>>,
}

impl Demographics {
    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        self.age.is_none() && self.country.is_none() && self.gender.is_none()
    }

    /// These facts, with those of `stored` where these are silent.
    #[must_use]
    pub fn or(self, stored: &Demographics) -> Demographics {
        Demographics {
            age: self.age.or(stored.age),
            country: self.country.or_else(|| stored.country.clone()),
            gender: self.gender.or_else(|| stored.gender.clone()),
        }
    }

    /// Checks values that came from outside.
    ///
    /// # Errors
    /// The field and the rule it broke.
    pub fn check(&self) -> Result<(), DemographicsError> {
        if let Some(age) = self.age.filter(|age| *age > AGE_MAX) {
            return Err(DemographicsError::Age { found: age });
        }
        for (field, text) in [("country", &self.country), ("gender", &self.gender)] {
            if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > 16) {
                return Err(DemographicsError::Text { field });
            }
        }
        Ok(())
    }
}

/// Why demographics are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemographicsError {
    /// An age above [`AGE_MAX`].
    #[error("age: {found} is not in 0..={AGE_MAX}")]
    Age {
        /// The age given.
        found: u8,
    },
    /// An empty or overlong country or gender.
    #[error("{field}: must be 1 to 16 bytes")]
    Text {
        /// Which of the two.
        field: &'static str,
    },
}

impl DemographicsError {
    /// The name of the offending field.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Age { .. } => "age",
            Self::Text { field } => field,
        }
    }
}

/// A user of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id.
    pub id: UserId,
    /// What is known.
    pub demographics: Demographics,
}
