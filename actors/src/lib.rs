//! Actors: protocols and behaviour of a Turret node.
