use std::net::{IpAddr, SocketAddr};

use insta::{assert_json_snapshot, assert_snapshot};

use super::*;

fn status_with_everything() -> DnsStatus {
    let row = |name: &str, address: &str, nickname: &str, answered| NameRow {
        name: format!("{name}.weave.local"),
        address: address.parse().expect("an address"),
        container: "0123456789ab".into(),
        peer: "7a:3c:00:00:00:01".into(),
        nickname: nickname.into(),
        answered,
    };
    let socket = |text: &str| text.parse::<SocketAddr>().expect("an address");
    DnsStatus {
        domain: "weave.local".into(),
        server: Some(IpAddr::from(SERVICE_ADDRESS)),
        ttl_s: 1,
        listening: vec![socket("127.0.0.1:53")],
        not_listening: vec![NotListening { address: socket("10.32.0.1:53"), why: "another program has this address and port".into() }],
        upstream: vec![[10, 0, 0, 2].into()],
        names: 1,
        entries: vec![row("db", "fd00::2", "h3", false), row("web", "10.32.0.1", "h1", true)],
    }
}

#[test]
fn what_people_and_programs_read() {
    let status = status_with_everything();
    assert_snapshot!("text_dns", text(&status));
    assert_snapshot!("line_dns", line(&status));
    assert_snapshot!("metrics_dns", metrics(&status));
    assert_json_snapshot!("json_dns", status);
}

#[tokio::test]
async fn a_router_without_names_takes_them_and_forgets() {
    let names = NamesHandle::off();
    assert_eq!(names.add("c", "web", &[[10, 32, 0, 1].into()]).await, Ok(()));
    assert_eq!(names.remove("c", None, &[]).await, Ok(()));
    assert_eq!((names.domain().await.as_str(), names.server().await), ("weave.local", None));
    assert_eq!(section(&names).overview, [("DNS".to_string(), "off (--no-dns)".to_string())]);
}
