//! "Did you mean": the known word nearest to a misspelt one.

/// The nearest of `known` words, if one is near enough to have been meant.
#[must_use]
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not worth the look: nothing that users name is longer.
    if word.len() > 64 {
        return None;
    }
    let limit = word.chars().count() / 4 + 1;
    known
        .into_iter()
        .filter(|other| other.len() <= 64)
        .map(|other| (distance(word, other), other))
        .filter(|&(distance, other)| distance <= limit && distance < other.chars().count())
        .min()
        .map(|(_, other)| other)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, without regard to case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    let mut left_before = None;
    for (index, here) in left.chars().flat_map(char::to_lowercase).enumerate() {
        let mut next = vec![index + 1];
        let mut right_before = None;
        for (column, &there) in right.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&row, column) + usize::from(here != there))
                .min(at(&row, column + 1) + 1)
                .min(at(&next, column) + 1);
            if left_before == Some(there) && right_before == Some(here) && column > 0 {
                best = best.min(at(&above, column - 1) + 1);
            }
            next.push(best);
            right_before = Some(there);
        }
        above = std::mem::replace(&mut row, next);
        left_before = Some(here);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["servers", "hosts", "rules", "egress", "methods", "id"];
        for (word, meant) in [
            ("server", Some("servers")),
            ("severs", Some("servers")),
            ("Hosts", Some("hosts")),
            ("rulse", Some("rules")),
            ("egres", Some("egress")),
            ("metods", Some("methods")),
            ("banana", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(closest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn distances_are_those_of_damerau() {
        for (left, right, edits) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("A", "a", 0),
        ] {
            assert_eq!(distance(left, right), edits, "{left} {right}");
        }
    }
}
