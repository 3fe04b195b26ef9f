//! Who gives addresses out, and who keeps names: other parts of the program, or nobody.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;

use crate::api::Denied;

/// An answer that may take a while.
pub type Told<'a, T> = BoxFuture<'a, Result<T, Denied>>;

/// Gives addresses out.
pub trait Addresses: Send + Sync {
    /// The address of `ident` in a subnet: the one it has, else a fresh one.
    fn allocate<'a>(&'a self, ident: &'a str, subnet: IpNet) -> Told<'a, IpNet>;
    /// Takes this very address for `ident`.
    fn claim<'a>(&'a self, ident: &'a str, address: IpNet) -> Told<'a, ()>;
    /// The addresses of `ident`.
    fn lookup<'a>(&'a self, ident: &'a str) -> Told<'a, Vec<IpNet>>;
    /// Gives an address back; `None` is all.
    fn free<'a>(&'a self, ident: &'a str, address: Option<IpAddr>) -> Told<'a, ()>;
    /// The container is dead.
    fn released<'a>(&'a self, ident: &'a str) -> Told<'a, ()>;
    /// These addresses are in use here, by containers and by the bridge: nobody else gets them, and nothing is given before this was said.
    fn reserve(&self, held: Vec<(String, IpNet)>, host: Vec<IpNet>) -> Told<'_, ()>;
}

/// Keeps names.
pub trait Names: Send + Sync {
    /// Says why it will not take this name, before anything is done.
    fn check(&self, name: &str) -> Result<(), Denied>;
    /// Adds addresses to a name.
    fn add<'a>(&'a self, ident: &'a str, name: &'a str, addresses: &'a [IpAddr]) -> Told<'a, ()>;
    /// Removes names, `None` for all, with these addresses, none for all.
    fn remove<'a>(&'a self, ident: &'a str, name: Option<&'a str>, addresses: &'a [IpAddr]) -> Told<'a, ()>;
}

/// The two, where there are such.
#[derive(Clone, Default)]
pub struct Books {
    /// Gives addresses out; without it only addresses that are named can be had.
    pub addresses: Option<Arc<dyn Addresses>>,
    /// Keeps names.
    pub names: Option<Arc<dyn Names>>,
}

impl Books {
    /// Who gives addresses out, or why nobody does.
    pub fn addresses(&self) -> Result<&dyn Addresses, Denied> {
        let nobody = "this router gives no addresses out; name them, as in ip:10.2.1.3/24";
        self.addresses.as_deref().ok_or_else(|| Denied::now(nobody))
    }
}
