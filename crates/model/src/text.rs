//! The words of a query, and their character n-grams, as in fastText (Bojanowski et al., "Enriching word vectors with
//! subword information", 2017): a misspelt or unseen word still shares most of its n-grams with what was trained.

/// Characters of an n-gram; the borders of a word are one each.
const GRAM: usize = 3;
/// Words of a query that count.
const WORDS_MAX: usize = 32;
/// Characters of a word that count.
const WORD_CHARACTERS_MAX: usize = 32;

/// The lower-case words of `text`, split at everything that is no letter and no digit.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The words of `text` and their n-grams, which carry a mark that no word can. At most about a thousand.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for word in words(text).take(WORDS_MAX) {
        let bounded: Vec<char> =
            std::iter::once('<').chain(word.chars().take(WORD_CHARACTERS_MAX)).chain(std::iter::once('>')).collect();
        all.extend(bounded.windows(GRAM).map(|gram| std::iter::once('#').chain(gram.iter().copied()).collect()));
        all.push(word);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_its_words_and_their_trigrams() {
        assert_eq!(tokens("Art-déco!"), ["#<ar", "#art", "#rt>", "art", "#<dé", "#déc", "#éco", "#co>", "déco"]);
        assert_eq!(tokens(" -- "), [""; 0]);
    }

    #[test]
    fn tokens_are_bounded_whatever_the_query() {
        assert!(tokens(&"ab ".repeat(10_000)).len() <= WORDS_MAX * 3);
        assert!(tokens(&"a".repeat(10_000)).len() <= WORD_CHARACTERS_MAX + 1);
    }
}
