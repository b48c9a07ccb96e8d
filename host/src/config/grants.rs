//! What a plugin may reach: `grants` in its table. Nothing by default.

pub mod customer_service;
pub mod http;
pub mod kv;
pub mod pages;
pub mod wechat_api;

pub use customer_service::CustomerServiceGrant;
pub use http::{HostPattern, HttpGrant};
pub use kv::KvGrant;
pub use pages::PagesGrant;
pub use wechat_api::{WechatApiGrant, gives_secrets};

use super::section::Section;

/// What one plugin in one account may reach.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// `kv`: its own keys in the store. Default none.
    pub kv: Option<KvGrant>,
    /// `http`: the hosts that it may send requests to. Default none.
    pub http: Vec<HttpGrant>,
    /// `customer_service`: whom it may send messages to. Default nobody.
    pub customer_service: Option<CustomerServiceGrant>,
    /// `wechat_api`: the calls of WeChat's API that it may make. Default none.
    pub wechat_api: Vec<WechatApiGrant>,
    /// `pages`: whether it serves pages. Default none.
    pub pages: Option<PagesGrant>,
}

/// The grants that one table gives.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnGrants {
    kv: Option<Option<KvGrant>>,
    http: Option<Vec<HttpGrant>>,
    customer_service: Option<Option<CustomerServiceGrant>>,
    wechat_api: Option<Vec<WechatApiGrant>>,
    pages: Option<Option<PagesGrant>>,
}

impl OwnGrants {
    /// Reads a plugin's table `grants`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            kv: kv::read(section),
            http: http::read(section),
            customer_service: customer_service::read(section),
            wechat_api: wechat_api::read(section),
            pages: pages::read(section),
        }
    }
}

impl Grants {
    /// The grants of a plugin among scratch services: keys in the store that is gone afterwards. What is played, WeChat's API
    /// included, needs no grant.
    pub fn scratch() -> Self {
        Self { kv: Some(KvGrant::default()), ..Self::default() }
    }

    /// Returns these grants with a table's own over them, key by key.
    pub(super) fn with(mut self, own: &OwnGrants) -> Self {
        if let Some(kv) = &own.kv {
            self.kv = kv.clone();
        }
        if let Some(http) = &own.http {
            self.http = http.clone();
        }
        if let Some(customer_service) = &own.customer_service {
            self.customer_service = *customer_service;
        }
        if let Some(wechat_api) = &own.wechat_api {
            self.wechat_api = wechat_api.clone();
        }
        if let Some(pages) = own.pages {
            self.pages = pages;
        }
        self
    }
}
