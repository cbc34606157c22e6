//! The contextual sequential two-tower model: features, training, evaluation, artifacts.
