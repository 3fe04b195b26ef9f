//! `admin-key` and `revoke`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use hyper::Method;
use rand_core::Rng;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::api::ApiAddress;
use crate::api::client::{Client, Form};
use crate::cli::options::revoke::RevokeArgs;
use crate::crypto::revocation::{from_hex, to_hex};
use crate::crypto::{Ed25519, Identity, PublicKey, Revocation};
use crate::io::entropy;

/// `admin-key`: the public key of the pair in a file, which is made where it is missing.
pub fn admin_key(file: &Path) -> anyhow::Result<String> {
    let mut seed = Zeroizing::new([0; 32]);
    entropy::generator().context("cannot get randomness from the kernel")?.fill_bytes(&mut *seed);
    match File::options().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut made) => {
            let text = Zeroizing::new(format!("{}\n", to_hex(&*seed)));
            let written = made.write_all(text.as_bytes()).and_then(|()| made.sync_all());
            written.with_context(|| format!("cannot write the admin key {}", file.display()))?;
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => seed = read_seed(file)?,
        Err(e) => return Err(e).with_context(|| format!("cannot make the admin key {}", file.display())),
    }
    Ok(format!("{}\n", Identity::from_seed(&seed).public().key))
}

fn read_seed(file: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read the admin key {}", file.display()))?;
    let seed = from_hex(text.trim()).map(Zeroizing::new);
    seed.with_context(|| format!("{} holds no admin key: it takes the file that `weave-router admin-key FILE` makes", file.display()))
}

/// `revoke`: silent where it worked. The private key stays here; the router is handed the signature.
pub fn revoke(api: ApiAddress, args: &RevokeArgs) -> anyhow::Result<String> {
    let client = Client::new(api);
    let report: Value = serde_json::from_str(&client.get("/report", Form::Json)?).context("the router's report is no JSON")?;
    for peer in &args.peers {
        let key = key_of(&report, peer)?;
        let mut body = json!({ "key": key.to_string() });
        if let Some(file) = &args.admin_key {
            let network = report["status"]["network"].as_str().context("the router's report names no network")?;
            let admin = Identity::from_seed(&*read_seed(file)?);
            body["signature"] = to_hex(&Revocation::sign(&Ed25519, &admin, network, key).signature).into();
        }
        client.act(Method::POST, "/revoke", Some(&body))?;
    }
    Ok(String::new())
}

/// The key of the one router with this name, nickname or key.
fn key_of(report: &Value, peer: &str) -> anyhow::Result<PublicKey> {
    if let Ok(key) = peer.parse() {
        return Ok(key);
    }
    let known = report["peers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut found = known.iter().filter(|row| row["name"] == peer || row["nickname"] == peer);
    let first = found.next().with_context(|| format!("no router of the mesh has the name or nickname '{peer}'; give its public key"))?;
    if found.next().is_some() {
        anyhow::bail!(
            "several routers have the nickname '{peer}'; give a name or a public key, as `weave-router status peers --json` shows"
        );
    }
    Ok(first["key"].as_str().context("the router's report names no key")?.parse::<PublicKey>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_key_is_made_once_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("admin");
        let public = admin_key(&file).expect("made");
        assert_eq!(admin_key(&file).expect("read"), public);
        assert_eq!(public.trim().len(), 64);
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "rubbish").expect("written");
        assert!(admin_key(&file).expect_err("no key").to_string().contains("admin-key FILE"));
        assert!(admin_key(Path::new("/nowhere/admin")).is_err());
    }

    #[test]
    fn a_member_is_found_by_what_people_call_it() {
        let key = |n: u8| PublicKey([n; 32]);
        let row = |n: u8, nickname: &str| json!({ "name": key(n).name().to_string(), "nickname": nickname, "key": key(n).to_string() });
        let report = json!({ "peers": [row(1, "h1"), row(2, "h2"), row(3, "h2")] });
        assert_eq!(key_of(&report, "h1").expect("one"), key(1));
        assert_eq!(key_of(&report, &key(2).name().to_string()).expect("one"), key(2));
        assert_eq!(key_of(&report, &key(9).to_string()).expect("a key"), key(9));
        assert!(key_of(&report, "h2").expect_err("two").to_string().contains("several"));
        assert!(key_of(&report, "h9").expect_err("none").to_string().contains("public key"));
    }
}
