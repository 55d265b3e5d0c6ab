//! TLS to a real PostgreSQL and a real MariaDB, with full verification: who is let in, and what is said to those who are
//! not.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use turnwise_node::exit;
use turnwise_node::store::{AnyStore, Store, StoreError};
use turnwise_servers::mariadb::MariaDb;
use turnwise_servers::postgres::Cluster;

/// An authority, and a file with its certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: String,
}

impl Authority {
    fn new(folder: &TempDir, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.path().join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file: file.to_str().unwrap().to_owned() }
    }

    /// A certificate for a host, and its key (PEM).
    fn certify(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// What becomes of connecting to the server by this name and with these parameters: whether it is encrypted, as the
/// server says.
async fn connect(server: &Cluster, host: &str, parameters: &str) -> Result<String, StoreError> {
    let port = server.port();
    let url = format!("postgres://postgres:geheim@{host}:{port}/postgres?{parameters}");
    let store = AnyStore::connect(&url, 1)?;
    store.migrate().await?;
    Ok(server.psql(
        "SELECT ssl::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name = 'turnwise'",
    ))
}

/// A refusal that names the reason and the remedy.
async fn is_refused(server: &Cluster, host: &str, parameters: &str, words: [&str; 2]) {
    says(&connect(server, host, parameters).await.unwrap_err(), words);
}

fn says(error: &StoreError, words: [&str; 2]) {
    let said = error.to_string();
    println!("    {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    assert!(!said.contains("geheim"), "{said}");
    assert!(!error.is_transient(), "waiting mends nothing");
    assert_eq!(exit::of_store(error), exit::BAD_CONFIGURATION);
}

#[tokio::test]
async fn the_server_is_verified_and_every_refusal_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (Authority::new(&folder, "right"), Authority::new(&folder, "wrong"));
    let server = Cluster::start();
    let full = format!("sslmode=verify-full&sslrootcert={}", right.file);
    is_refused(&server, "localhost", &full, ["does not support TLS", "ssl = on"]).await;

    let (certificate, key) = right.certify("localhost");
    server.use_tls(&certificate, &key);
    assert_eq!(connect(&server, "localhost", &full).await.unwrap(), "true");
    // Another name for the same machine.
    is_refused(&server, "127.0.0.1", &full, ["not valid for name", "subjectAltName"]).await;
    // Another authority, or none but those that the machine knows.
    let other = format!("sslmode=verify-full&sslrootcert={}", wrong.file);
    is_refused(&server, "localhost", &other, ["UnknownIssuer", "sslrootcert"]).await;
    let none = "sslmode=verify-full";
    is_refused(&server, "localhost", none, ["UnknownIssuer", "sslrootcert"]).await;
    // The name counts for nothing where it was asked not to; the authority does.
    let authority_alone = format!("sslmode=verify-ca&sslrootcert={}", right.file);
    assert_eq!(connect(&server, "127.0.0.1", &authority_alone).await.unwrap(), "true");
    let other = format!("sslmode=verify-ca&sslrootcert={}", wrong.file);
    is_refused(&server, "127.0.0.1", &other, ["UnknownIssuer", "sslrootcert"]).await;
    // What would look at nothing, or cannot.
    let unused = format!("sslmode=require&sslrootcert={}", right.file);
    is_refused(&server, "localhost", &unused, ["nothing is checked", "sslmode=verify-full"]).await;
    let missing = "sslmode=verify-full&sslrootcert=/no/such.pem";
    is_refused(&server, "localhost", missing, ["/no/such.pem", "cannot be read"]).await;

    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    let expired = params.signed_by(&key, &right.issuer).unwrap();
    server.use_tls(&expired.pem(), &key.serialize_pem());
    is_refused(&server, "localhost", &full, ["expired", "Renew"]).await;
}

#[tokio::test]
async fn mariadb_is_verified_likewise() {
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir();
    let folder = folder.unwrap();
    let (right, wrong) = (Authority::new(&folder, "right"), Authority::new(&folder, "wrong"));
    let (certificate, key) = right.certify("localhost");
    let file = |name: &str, content: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        // The server runs as another user.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (file("server.crt", certificate), file("server.key", key));
    let server = MariaDb::start_with(&[
        &format!("--ssl-cert={certificate}"),
        &format!("--ssl-key={key}"),
        "--require-secure-transport=ON",
    ]);
    server.sql("CREATE DATABASE jobs; CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'; GRANT ALL ON jobs.* TO app@'127.0.0.1'");
    let url = |host: &str, mode: &str, authority: &Authority| {
        let port = server.port();
        format!("mysql://app:geheim@{host}:{port}/jobs?ssl-mode={mode}&ssl-ca={}", authority.file)
    };
    let migrate = async |url: String| AnyStore::connect(&url, 1)?.migrate().await;
    migrate(url("localhost", "VERIFY_IDENTITY", &right)).await.unwrap();
    let other_name = migrate(url("127.0.0.1", "VERIFY_IDENTITY", &right)).await;
    says(&other_name.unwrap_err(), ["not valid for name", "subjectAltName"]);
    let other_authority = migrate(url("localhost", "VERIFY_IDENTITY", &wrong)).await;
    says(&other_authority.unwrap_err(), ["UnknownIssuer", "ssl-ca"]);
    migrate(url("127.0.0.1", "VERIFY_CA", &right)).await.unwrap();
    let unused = migrate(url("localhost", "REQUIRED", &right)).await;
    says(&unused.unwrap_err(), ["nothing is checked", "ssl-mode=VERIFY_IDENTITY"]);
}
