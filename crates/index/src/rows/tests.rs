use super::*;
use crate::fixtures::{ad, keyword, unit};

fn row(id: &str, embedding: UnitVector, attributes: &[(&str, Attribute)]) -> ShardAd {
    ShardAd { ad: ad(id, attributes), embedding }
}

/// A vector that no constructor makes, as it may come over a wire.
fn raw(components: &[f32]) -> UnitVector {
    let bytes = postcard::to_stdvec(components).unwrap();
    postcard::from_bytes(&bytes).unwrap()
}

#[test]
fn ads_are_sorted_by_id_with_their_embeddings() {
    let rows = ShardRows::new(2, vec![row("b", unit(&[0.0, 1.0]), &[]), row("a", unit(&[1.0, 0.0]), &[])]).unwrap();
    let ids: Vec<&str> = rows.ads.iter().map(|ad| ad.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(rows.vectors, [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(rows.dimension, 2);
}

#[test]
fn ads_that_break_a_rule_name_it() {
    let check = |dimension: usize, ads: &[ShardAd], expected: &str| {
        assert_eq!(ShardRows::new(dimension, ads.to_vec()).unwrap_err().to_string(), expected);
    };
    let x = || unit(&[1.0, 0.0]);
    check(0, &[], "dimension 0 is not in 1..=4096");
    check(4_097, &[], "dimension 4097 is not in 1..=4096");
    check(2, &[row("a", x(), &[]), row("b", x(), &[]), row("a", x(), &[])], "ad a is there twice");
    check(3, &[row("a", x(), &[])], "embedding of ad a: dimension 2 where 3 is expected");
    check(2, &[row("a", raw(&[0.0, f32::NAN]), &[])], "embedding of ad a: component 1 is not finite");
    check(2, &[row("a", raw(&[0.0, 0.0]), &[])], "embedding of ad a: length is zero");
    check(2, &[row("a", raw(&[3.0, 4.0]), &[])], "embedding of ad a: length 5 is not 1");
    check(
        2,
        &[row("a", x(), &[("age", Attribute::Number(3.0))]), row("b", x(), &[("age", keyword("old"))])],
        "attribute age of ad b is of kind Keyword, in an earlier ad it is of kind Number",
    );
    let infinite = Attribute::Number(f64::INFINITY);
    check(2, &[row("a", x(), &[("age", infinite)])], "attribute age of ad a is not finite");
}
