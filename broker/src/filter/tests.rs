//! Expressions and what they say of one message.

use super::*;

/// The message that the expressions of [`sql`] look at.
fn property(name: &str) -> Option<&'static str> {
    Some(match name {
        "a" => "5",
        "b" => "5.5",
        "big" => "99999999999",
        "color" => "red",
        "quote" => "it's",
        "yes" => "true",
        "no" => "false",
        "TAGS" => "TagA",
        "neg" => "-3",
        _ => return None,
    })
}

/// `T`rue, `F`alse, `N`ull, or `E`rror while evaluating.
fn outcome(text: &str) -> char {
    let expression = parser::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let value = expression.evaluate(&|name| property(name));
    match value.map(|value| value.truth()) {
        Ok(Some(true)) => 'T',
        Ok(Some(false)) => 'F',
        Ok(None) => 'N',
        Err(_) => 'E',
    }
}

#[test]
fn sql() {
    let table = [
        ('T', "a = 5"),
        ('T', "a = 5L AND 5 = a"),
        ('F', "a <> 5"),
        ('T', "a > 4 and A IS NULL"),
        ('F', "a > 5"),
        ('T', "a >= 5 AND a <= 5"),
        ('T', "a < 5.5 AND b < 6.0"),
        ('E', "b = 5"),
        ('E', "b < 6"),
        ('T', "b = 5.5"),
        ('T', "b > 5.4e0 AND b > .5 AND b < 1E3 AND b > 0.0"),
        ('T', "big = 99999999999"),
        ('T', "big > 5"),
        ('T', "neg = -3"),
        ('T', "neg = - + 3"),
        ('T', "neg BETWEEN -5 AND -1"),
        ('T', "color = 'red'"),
        ('F', "color = 'Red'"),
        ('T', "quote = 'it''s'"),
        ('E', "color = 5"),
        ('E', "color > 5"),
        ('E', "a > color"),
        ('T', "b > a"),
        ('T', "yes = TRUE and no = false"),
        ('T', "yes"),
        ('F', "no"),
        ('F', "color"),
        ('F', "color = TRUE"),
        ('F', "1 = TRUE"),
        ('T', "TRUE"),
        ('N', "NULL"),
        ('N', "missing = 5"),
        ('N', "missing <> 5"),
        ('N', "NOT missing = 5"),
        ('N', "missing > 5"),
        ('T', "missing IS NULL"),
        ('F', "missing IS NOT NULL"),
        ('T', "TAGS is not null"),
        ('T', "missing = 5 OR a = 5"),
        ('N', "missing = 5 OR a = 6"),
        ('F', "missing = 5 AND a = 6"),
        ('N', "missing = 5 AND a = 5"),
        ('T', "a = 5 OR color > 5"),
        ('E', "color > 5 OR a = 5"),
        ('F', "a = 6 AND color > 5"),
        ('T', "a = 6 AND a = 5 OR a = 5"),
        ('F', "a = 6 AND (a = 5 OR a = 5)"),
        ('T', "NOT a = 6"),
        ('T', "NOT (a = 6 OR a = 7)"),
        ('F', "NOT NOT a = 6"),
        ('T', "a BETWEEN 5 AND 5"),
        ('T', "a BETWEEN 1 AND 6 AND color = 'red'"),
        ('F', "a NOT BETWEEN 1 AND 6"),
        ('T', "a NOT BETWEEN 6 AND 7"),
        ('N', "missing BETWEEN 1 AND 2"),
        ('F', "a BETWEEN 6 AND missing"),
        ('N', "a BETWEEN 5 AND missing"),
        ('T', "color IN ('blue', 'red')"),
        ('F', "color IN ('blue')"),
        ('T', "color NOT IN ('blue')"),
        ('N', "missing IN ('blue')"),
        ('N', "missing NOT IN ('blue')"),
        ('T', "color CONTAINS 'e'"),
        ('F', "color not contains 'e'"),
        ('T', "color StartsWith 're' AND color ENDSWITH 'ed'"),
        ('N', "missing CONTAINS 'e'"),
        ('T', "(a > 4) = TRUE"),
        ('T', "a = 5 -- and the rest of the line\n AND color = /* not blue */ 'red'"),
        ('T', "_x IS NULL AND $y IS NULL"),
        ('T', "9223372036854775807 > -9223372036854775808"),
        ('T', "1 < 1.5"),
    ];
    for (expected, text) in table {
        assert_eq!(outcome(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_expression_is_refused() {
    let table = [
        "",
        "color === red",
        "a != 5",
        "a = ",
        "a = 5 5",
        "(a = 5",
        "a = 5)",
        "a LIKE 'x'",
        "a + 1 = 5",
        "-a = 5",
        "a > 'x'",
        "a > TRUE",
        "'x' < a",
        "a BETWEEN 'x' AND 'y'",
        "a BETWEEN 7 AND 6",
        "a BETWEEN 1",
        "a IN ()",
        "a IN (5)",
        "5 IN ('5')",
        "'x' CONTAINS 'x'",
        "a CONTAINS b",
        "a NOT = 5",
        "a IS 5",
        "a = 'x",
        "a = 5 /* x",
        "a = 9223372036854775808",
        "a = 007",
        "a = 5red",
        "a = 1e",
        "a = 1.2.3",
        "a = \u{e4}",
        "a.b = 5",
        "NOT",
        "AND",
    ];
    for text in table {
        assert!(parser::parse(text).is_err(), "{text}");
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}a = 5{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parser::parse(&nested(parser::DEPTH_MAX)).is_ok());
    assert!(parser::parse(&nested(parser::DEPTH_MAX + 1)).is_err());
    assert!(parser::parse(&nested(20_000)).is_err());
    assert!(parser::parse(&format!("{}a = 5", "NOT ".repeat(10_000))).is_err());
    assert!(parser::parse(&format!("a{}", " = 5".repeat(10_000))).is_err());
    assert!(parser::parse(&format!("a{}", " IS NULL".repeat(8_000))).is_err());
    // A long row of alternatives is wide, not deep.
    assert!(parser::parse(&format!("a = 1{}", " OR a = 5".repeat(5_000))).is_ok());
    assert!(parser::parse(&format!("a = 1{}", " OR a = 5".repeat(10_000))).is_err());
}

#[test]
fn tags_pass_by_hash() {
    let filter = Filter::compile(Some("TAG"), "TagB || TagA").unwrap();
    assert!(filter.may_match(2_598_919) && filter.may_match(2_598_920));
    assert!(!filter.may_match(0));
    assert_eq!(Filter::compile(None, "*"), Ok(Filter::All));
    assert_eq!(Filter::compile(Some(""), ""), Ok(Filter::All));
    assert!(Filter::compile(Some("TAG"), "||").is_err());
    assert!(Filter::compile(Some("XPATH"), "*").is_err());
    let hashes_only = SubscriptionData { code_set: vec![7, 5], ..SubscriptionData::default() };
    assert_eq!(Filter::of_subscription(&hashes_only), Ok(Filter::Tags(Box::new([5, 7]))));
}

#[test]
fn nothing_makes_the_parser_panic() {
    use proptest::prelude::*;
    proptest!(|(text in "[a-c' =<>()0-9.,eNOTANDIS\\-/*\u{e4}]{0,40}")| {
        if let Ok(expression) = parser::parse(&text) {
            let _ = expression.evaluate(&|name| property(name));
        }
    });
}
