//! The verbs about names.

use std::net::IpAddr;

use hyper::Method;

use crate::api::ApiAddress;
use crate::api::client::{Client, Form, escape};
use crate::api::names::EXTERN;
use crate::cli::config::ConfigError;
use crate::cli::options::NameArgs;

/// What `dns-add` and `dns-remove` speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Who holds the name.
    pub ident: String,
    /// The addresses; for `dns-remove`, none are all.
    pub addresses: Vec<IpAddr>,
    /// The name; for `dns-remove`, none is all.
    pub name: Option<String>,
}

impl Naming {
    /// Tells addresses from a container. `adding` needs both a name and addresses.
    pub fn new(verb: &str, args: NameArgs, adding: bool) -> Result<Naming, ConfigError> {
        let usage = |sentence: &str| Err(ConfigError::Usage(format!("{verb}: {sentence}")));
        let (addresses, others): (Vec<_>, Vec<_>) =
            args.what.into_iter().map(|word| word.parse::<IpAddr>().map_err(|_| word)).partition(Result::is_ok);
        let addresses: Vec<IpAddr> = addresses.into_iter().filter_map(Result::ok).collect();
        let mut others = others.into_iter().filter_map(Result::err);
        let (ident, more) = (others.next(), others.next());
        if more.is_some() {
            return usage("give one container at most, and addresses");
        }
        let name = args.hostname.filter(|name| !name.is_empty());
        if adding && (name.is_none() || addresses.is_empty()) {
            return usage("give one address or more, and the name by --hostname NAME");
        }
        if ident.is_none() && addresses.is_empty() && name.is_none() {
            return usage("say what is to go: addresses, a container, or --hostname NAME");
        }
        Ok(Naming { ident: ident.unwrap_or_else(|| EXTERN.into()), addresses, name })
    }

    /// The pages of the API, one for each address; with no addresses the one for all.
    fn paths(&self) -> Vec<String> {
        let query = self.name.as_ref().map_or_else(String::new, |name| format!("?fqdn={}", escape(name)));
        let ident = escape(&self.ident);
        if self.addresses.is_empty() {
            return vec![format!("/name/{ident}{query}")];
        }
        self.addresses.iter().map(|address| format!("/name/{ident}/{}{query}", escape(&address.to_string()))).collect()
    }
}

/// `dns-add`; silent where it worked.
pub fn add(api: ApiAddress, naming: &Naming) -> anyhow::Result<String> {
    let client = Client::new(api);
    for path in naming.paths() {
        client.act(Method::PUT, &path, None)?;
    }
    Ok(String::new())
}

/// `dns-remove`; silent where it worked, or where there was nothing.
pub fn remove(api: ApiAddress, naming: &Naming) -> anyhow::Result<String> {
    let client = Client::new(api);
    for path in naming.paths() {
        client.act(Method::DELETE, &path, None)?;
    }
    Ok(String::new())
}

/// `dns-lookup`: addresses of a name, or names of an address, one a line.
pub fn look_up(api: ApiAddress, what: &str) -> anyhow::Result<String> {
    Ok(Client::new(api).get(&format!("/name/{}", escape(what)), Form::Text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(words: &str, hostname: Option<&str>, adding: bool) -> Result<Naming, ConfigError> {
        let what = words.split_whitespace().map(String::from).collect();
        Naming::new("dns-x", NameArgs { what, hostname: hostname.map(String::from) }, adding)
    }

    #[test]
    fn addresses_and_a_container_in_any_order() {
        let both = naming("10.0.0.1 abc fd00::1", Some("web"), true).expect("good");
        assert_eq!((both.ident.as_str(), both.addresses.len()), ("abc", 2));
        assert_eq!(both.paths(), ["/name/abc/10.0.0.1?fqdn=web", "/name/abc/fd00%3A%3A1?fqdn=web"]);
        let path = naming("netns:/run/netns/a b", None, false);
        assert!(path.is_err(), "two containers");
        assert_eq!(naming("netns:/run/x", None, false).expect("good").paths(), ["/name/netns%3A%2Frun%2Fx"]);
        assert_eq!(naming("", Some("web"), false).expect("good").paths(), ["/name/weave%3Aextern?fqdn=web"]);
        for (words, hostname, adding) in [("10.0.0.1", None, true), ("", Some("web"), true), ("abc", Some("web"), true), ("", None, false)]
        {
            assert!(matches!(naming(words, hostname, adding), Err(ConfigError::Usage(_))), "{words} {hostname:?}");
        }
    }
}
