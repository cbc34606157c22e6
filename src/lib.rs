//! The Turret program.
