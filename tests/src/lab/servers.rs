//! The real servers: nginx and the UDP echo server, one of each in every backend's namespace.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::command::run_in;
use super::error::{LabError, Result};
use super::process::{Process, wait_until};
use super::site::Site;
use super::topology::backend_address;
use crate::helper::content;

/// L4 port of the echo servers and of the service `echo`.
pub const ECHO_PORT: u16 = 7;

/// Time that `/big` takes at nginx' rate limit: 3 MiB at 512 KiB/s.
pub const BIG_SECONDS: u64 = 6;

/// The servers of one backend.
#[derive(Debug)]
pub struct Servers {
    number: u8,
    /// nginx.
    pub nginx: Process,
    /// The UDP echo server.
    pub echo: Process,
}

impl Servers {
    /// Start the servers of backend `number` and wait until both answer. `nginx_cpus` is a CPU
    /// list as taskset takes it; `helper` is the `sluice-lab` binary.
    pub fn start(site: &Site, number: u8, helper: &Path, nginx_cpus: &str) -> Result<Self> {
        write_nginx(site, number)?;
        let nginx = start_nginx(site, number, nginx_cpus)?;
        let name = name(number);
        let listen = format!("{}:{ECHO_PORT}", backend_address(number));
        let helper = helper.display().to_string();
        let echo_argv = [&helper, "echo-server", "--name", &name, "--listen", &listen];
        let mut echo =
            Process::spawn(site, &site.netns(&name), &format!("echo-{name}"), &echo_argv)?;
        echo.wait_ready(Duration::from_secs(5))?;
        Ok(Servers { number, nginx, echo })
    }

    /// Start nginx again after it was killed.
    pub fn restart_nginx(&mut self, site: &Site, nginx_cpus: &str) -> Result<()> {
        self.nginx.kill();
        self.nginx = start_nginx(site, self.number, nginx_cpus)?;
        Ok(())
    }
}

/// The name of backend `number`, from 1; its namespace has the same.
pub fn name(number: u8) -> String {
    format!("b{number}")
}

fn start_nginx(site: &Site, number: u8, cpus: &str) -> Result<Process> {
    let name = name(number);
    let netns = site.netns(&name);
    let config = site.file(&format!("nginx-{name}/nginx.conf")).display().to_string();
    let argv = ["taskset", "-c", cpus, "nginx", "-c", &config];
    let mut nginx = Process::spawn(site, &netns, &format!("nginx-{name}"), &argv)?;
    let url = format!("http://{}/health", backend_address(number));
    let within = Duration::from_secs(5);
    wait_until(&format!("nginx of {name} answers"), within, || {
        if !nginx.is_running() {
            let log = nginx.log().to_owned();
            let tail = nginx.log_tail(10);
            return Err(LabError::NotReady { name: format!("nginx of {name}"), within, log, tail });
        }
        Ok(run_in(&netns, &["curl", "-sf", "-o", "/dev/null", &url]).ok())
    })?;
    Ok(nginx)
}

fn write_nginx(site: &Site, number: u8) -> Result<()> {
    let name = name(number);
    let dir = site.file(&format!("nginx-{name}"));
    let root = dir.join("root");
    let write = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).map_err(LabError::io(path.display().to_string()))
    };
    fs::create_dir_all(&root).map_err(LabError::io(root.display().to_string()))?;
    write(&root.join("index.html"), &content::page(&name))?;
    write(&root.join("big"), &content::big(&name))?;
    write(&dir.join("nginx.conf"), nginx_config(&name, &dir).as_bytes())
}

fn nginx_config(name: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"user root;
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type text/plain;
    open_file_cache max=16;
    keepalive_requests 1000000;
    keepalive_timeout 60s;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 80 backlog=4096;
        root {dir}/root;
        add_header X-Backend {name};
        location = /health {{ return 200 "{name} is well\n"; }}
        location = /big {{ limit_rate 512k; }}
    }}
}}
"#
    )
}
