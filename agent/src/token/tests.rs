use super::*;
use fabric::id::NodeId;
use proptest::prelude::*;

fn token() -> Token {
    Token::generate(&NodeId([7; 32])).expect("random numbers")
}

#[test]
fn a_token_survives_being_written_down() {
    let token = token();
    let text = token.to_string();
    assert_eq!(text.parse::<Token>(), Ok(token.clone()));
    assert_eq!(format!("  {}\n", text.to_uppercase()).parse::<Token>(), Ok(token.clone()));
    assert!(token.is_for(&NodeId([7; 32])));
    assert!(!token.is_for(&NodeId([8; 32])));
    assert!(!format!("{token:?}").contains(text.rsplit('.').next().expect("four parts")));
}

#[test]
fn two_tokens_differ() {
    assert_ne!(token().id(), token().id());
    assert_ne!(token().secret_hash(), token().secret_hash());
}

#[test]
fn any_single_mistyped_character_is_noticed() {
    let text = token().to_string();
    for at in PREFIX.len() + 1..text.len() {
        let mut typed = text.clone().into_bytes();
        if typed[at] == b'.' {
            continue;
        }
        typed[at] = if typed[at] == b'a' { b'b' } else { b'a' };
        let typed = String::from_utf8(typed).expect("ASCII");
        let error = typed.parse::<Token>().expect_err("mistyped");
        assert!(
            matches!(error, TokenError::Checksum | TokenError::Symbol { .. }),
            "{typed}: {error}"
        );
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let text = token().to_string();
    let cut = &text[..text.len() - 3];
    assert_eq!(
        cut.parse::<Token>(),
        Err(TokenError::Length { part: "secret", found: 37, expected: 40 })
    );
    assert_eq!("".parse::<Token>(), Err(TokenError::NotAToken));
    assert_eq!("hello".parse::<Token>(), Err(TokenError::NotAToken));
    let newer = text.replace("weft1", "weft2");
    assert_eq!(newer.parse::<Token>(), Err(TokenError::Newer("weft2".into())));
    let other = text.replace("weft1", "wept1");
    assert_eq!(other.parse::<Token>(), Err(TokenError::NotAToken));
    let foreign = text.replacen(&text[10..11], "1", 1).replace("weft1.1", "weft1.");
    assert!(foreign.parse::<Token>().is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,300}") {
        let _ = text.parse::<Token>();
    }

    #[test]
    fn nothing_that_looks_like_a_token_makes_the_parser_panic(
        text in "weft1(\\.[a-z0-9é]{0,50}){0,5}"
    ) {
        let _ = text.parse::<Token>();
    }
}
