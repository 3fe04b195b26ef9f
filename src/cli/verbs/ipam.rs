//! The verbs of the address book.

use hyper::Method;

use crate::api::ApiAddress;
use crate::api::client::{Client, ClientError};
use crate::api::server::NOTHING_HERE;

/// `prime`: silent once there is a ring. The router answers within ten seconds; until it says yes it is asked again.
pub fn prime(api: ApiAddress) -> anyhow::Result<String> {
    let client = Client::new(api);
    loop {
        match client.act(Method::GET, "/ring", None) {
            Ok(_) => return Ok(String::new()),
            Err(ClientError::Refused { sentence, .. }) if sentence.contains("no ring of addresses yet") => tracing::info!("{sentence}"),
            Err(error) => return Err(error.into()),
        }
    }
}

/// `rmpeer`: how much was taken over, one line each.
pub fn rmpeer(api: ApiAddress, peers: &[String], force: bool) -> anyhow::Result<String> {
    let client = Client::new(api);
    let each = peers.iter().map(|peer| client.act(Method::DELETE, &format!("/peer/{}{}", encoded(peer), query(force)), None));
    Ok(each.collect::<Result<String, ClientError>>()?)
}

/// `reset`: containers, the host's own addresses and the firewall's rules go first, then the addresses; answers with to whom. A router that gives
/// no addresses has none to hand over.
pub fn reset(api: ApiAddress, force: bool) -> anyhow::Result<String> {
    let client = Client::new(api);
    client.act(Method::POST, "/reset", None)?;
    match client.act(Method::DELETE, &format!("/peer{}", query(force)), None) {
        Err(ClientError::Refused { sentence, .. }) if sentence == NOTHING_HERE => Ok(String::new()),
        other => Ok(other?),
    }
}

fn query(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}

/// A nickname as part of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn nicknames_are_encoded() {
        assert_eq!(super::encoded("h 1/ä:2?"), "h%201%2F%C3%A4:2%3F");
    }
}
