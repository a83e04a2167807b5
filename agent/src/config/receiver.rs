//! Whom samples are sent to.

use hyper::Uri;
use std::fmt;
use std::str::FromStr;

/// Who takes the samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    pub host: String,
    pub port: u16,
    /// Host and port as the configuration has them.
    pub authority: String,
    pub path: String,
}

impl FromStr for Receiver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write http://HOST:PORT/PATH, as in \"http://prometheus:9090/api/v1/write\"";
        let uri = text.parse::<Uri>().map_err(|error| format!("{error}: {form}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("https is not spoken here: send to a proxy on this machine or in a \
                     network that you trust, and let it speak TLS with the receiver"
                    .into());
            }
            _ => return Err(form.into()),
        }
        let authority = uri.authority().ok_or(form)?;
        if authority.as_str().contains('@') {
            return Err("a name and a password are not sent: let a proxy add them".into());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || authority.port_u16() == Some(0) {
            return Err(form.into());
        }
        Ok(Self {
            host: host.into(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().into(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).into(),
        })
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}{}", self.authority, self.path)
    }
}
