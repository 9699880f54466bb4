//! What is read as what.

use proptest::prelude::*;

use super::*;

#[test]
fn tricks_are_read_as_what_they_look_like() {
    for (sent, read) in [
        ("rm -rf /", "rm -rf /"),
        ("r\u{200b}m -r\u{ad}f", "rm -rf"),
        ("r\u{0}m\u{7f} -rf", "rm -rf"),
        ("rm\u{a0}-rf", "rm -rf"),
        ("rm\u{3000}\u{2011}rf", "rm -rf"),
        ("ｒｍ －ｒｆ", "rm -rf"),
        ("𝐫𝐦 -𝓇𝒻", "rm -rf"),
        ("r\u{217f} -rf", "rm -rf"),
        ("DR\u{41e}P T\u{391}BLE", "DROP TABLE"),
        ("DRO\u{3a1} \u{422}ABLE", "DROP TABLE"),
        ("\u{399}NSERT", "INSERT"),
        ("p\u{430}ss", "pass"),
        ("r\u{fe0f}m", "rm"),
        ("r\u{e0041}m", "rm"),
        ("\u{2066}rm\u{2069}", "rm"),
        ("line\r\n\tline", "line\r\n\tline"),
        ("a\u{2028}b", "a b"),
        ("caf\u{e9}", "caf\u{e9}"),
        ("cafe\u{301}", "caf\u{e9}"),
        ("日本語", "日本語"),
        ("I1l0O|m", "I1l0O|m"),
        ("", ""),
    ] {
        assert_eq!(readable(sent), read, "{sent:?}");
    }
}

#[test]
fn a_receiver_keeps_its_alphabet() {
    for (sent, received) in [
        (
            "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}",
            "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}",
        ),
        ("a\u{ff0f}etc", "a/etc"),
        ("\u{ff0e}\u{ff0e}\u{200b}/x", "../x"),
    ] {
        assert_eq!(compatible(sent), received, "{sent:?}");
    }
}

proptest! {
    /// ASCII letters are never changed, nothing invisible remains, and all stays within some bound of its length.
    #[test]
    fn nothing_hidden_remains(text in "\\PC{0,20}", hidden in "[\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2060}-\u{2064}\u{feff}\u{ad}]{0,8}", word in "[a-zA-Z0-9 -]{0,12}") {
        let normal = readable(&text).into_owned();
        prop_assert!(normal.chars().all(|c| !is_dropped(c)), "{normal:?}");
        let mut salted = String::new();
        for (c, salt) in word.chars().zip(hidden.chars().cycle().map(Some).chain(std::iter::repeat(None))) {
            salted.push(c);
            salted.extend(salt);
        }
        if !hidden.is_empty() {
            prop_assert_eq!(readable(&salted), word.as_str());
        }
    }
}

/// Whether either of two names may be taken for the other.
fn alike(one: &str, other: &str) -> bool {
    let alike = confusable(one, &[other]);
    assert_eq!(alike, confusable(other, &[one]), "{one:?} {other:?}");
    alike
}

#[test]
fn names_that_some_reader_takes_for_others() {
    for (name, known) in [
        ("AmountCents", "amountCents"),
        ("AMOUNTCENTS", "amountCents"),
        ("amountCent\u{17f}", "amountCents"),
        ("to\u{212a}en", "token"),
        ("\u{130}d", "id"),
        ("\u{456}d", "id"),
        ("\u{ff49}\u{ff44}", "id"),
        ("\u{1d41a}mount", "amount"),
        ("amount\u{200b}", "Amount"),
        ("amo\u{336}unt", "amount"),
        ("amount ", "amount"),
        ("rm-rf", "rm -rf"),
        ("a\u{fff9}b", "ab"),
        ("GRÖSSE", "größe"),
        ("gro\u{308}ße", "größe"),
        ("\u{41d}\u{415}\u{422}", "\u{43d}\u{435}\u{442}"),
        ("\u{3c3}\u{3b1}\u{3c2}", "\u{3a3}\u{391}\u{3a3}"),
        ("\u{41d}ote", "Hote"),
    ] {
        assert!(alike(name, known), "{name:?} {known:?}");
    }
    for (name, known) in [
        ("amount", "amount"),
        ("amounts", "amount"),
        ("amount_cents", "amountCents"),
        ("", "a"),
        ("côté", "cote"),
        ("\u{439}", "\u{438}"),
        ("日本", "日木"),
        ("1d", "ld"),
    ] {
        assert!(!alike(name, known), "{name:?} {known:?}");
    }
    assert!(!confusable("ID", &["id", "ID"]), "it is known itself");
    let letters = "к\u{212a}КκΚ ѕЅꜱſ аАαΑɑ сСϲᴄ ԁɗ еЕεΕℯ ɡ һНΗ іІıİιΙɩ јЈϳ ӏⅼ мМΜⅿ пոΝ оОοΟօ рРρΡ ԛ гᴦ тТτΤ υս ѵν ԝѡ хХχΧ уУγ";
    let groups = letters
        .split(' ')
        .zip("k s a c d e g h i j l m n o p q r t u v w x y".split(' '));
    for (letters, ascii) in groups {
        for letter in letters.chars() {
            let name = format!("a{letter}a");
            assert!(alike(&name, &format!("a{ascii}a")), "{name}");
        }
    }
}
