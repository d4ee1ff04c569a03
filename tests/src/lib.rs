//! Harness for tests that need a running daemon: namespaces, topologies, crafted packets, sniffers, traffic.
//!
//! A test draws its topology at the top of its file, builds it from [`netns`] and [`topology`], starts daemons with
//! [`daemon`], sends with [`raw`] (crafted) or [`flows`] and [`traffic`] (through the kernel's sockets), and looks at three things:
//! what a [`raw::Sniffer`] saw, what the sockets received, and what the daemon counted. Everything a test creates is
//! owned by a guard and goes away when the guard drops, on panic too.
//!
//! | module | answers the question |
//! |---|---|
//! | [`netns`] | where does it run? |
//! | [`topology`] | who is connected to whom? |
//! | [`packet`], [`nd`], [`icmp4`] | which bytes are sent, and what do seen bytes say? |
//! | [`narrow`] | what if the path in between takes less? |
//! | [`scene`] | which router, hosts and server do most tests need? |
//! | [`raw`] | how do crafted bytes get onto an interface, and what passed there? |
//! | [`corpus`], [`disagreements`] | which packets should two receivers judge alike, and where do they not? |
//! | [`mutations`], [`judge`] | which bytes nobody thinks of are sent, and what has to become of them? |
//! | [`ping`] | does it answer? |
//! | [`fragments`] | what was it before it was cut? |
//! | [`flows`] | did each datagram arrive, once and in order? |
//! | [`traffic`] | did TCP arrive, byte for byte? |
//! | [`exchange`] | was each question answered once? |
//! | [`reloading`] | what does a reload change, and what not? |
//! | [`steady`] | what was lost, and for how long, while something happened? |
//! | [`witness`], [`numbered`] | did the tunnel stand still, or the machine? |
//! | [`fleet`], [`bird`] | what if there are several routers, and routing leads to them? |
//! | [`daemon`], [`metrics`] | is the daemon up, what does it count, what does it log? |
//! | [`programs`], [`tried`] | what if the programs in the kernel carry everything, and what do they make of one packet? |
//! | [`kernel_drops`] | what did the kernel lose? |
//! | [`radvd`], [`advertiser`] | who else advertises, by the book or not? |
//! | [`asker`] | what is a host told that asks? |
//! | [`configured`] | what has the kernel got from it? |
//! | [`config_files`] | which configuration does nobody think of? |
//! | [`dns`] | who answers for the routers' names, and with which lies? |
//! | [`guest`], [`kernel_peer`] | which machine has the kernel's own ISATAP, and does it understand ours? |
//! | [`older_kernel`] | does it hold on an older kernel, too? |
//! | [`state`] | what has the kernel on an interface, what does a process hold? |
//! | [`confined`] | what if the machine refuses it something? |
//! | `inside` | what if a process that runs were somebody else's? |
//! | [`cgroup`] | what if there is little memory? |
//! | [`scratch_root`] | where may it install, remove, or listen at fixed paths? |
//! | [`installation`] | what if the program is replaced while it runs? |
//! | [`package`] | what does an installation consist of? |
//! | [`unit`], [`service`] | does it run when systemd has taken away what the unit says? |
//! | [`browser`] | what does a page look like, and what does it ask for? |
//! | [`coverage`] | which test covers which requirement or fault? |
//! | [`wait`] | when is it so far? |

pub mod advertiser;
pub mod asker;
pub mod bird;
pub mod browser;
pub mod cgroup;
pub mod config_files;
pub mod configured;
pub mod confined;
pub mod corpus;
pub mod coverage;
pub mod daemon;
pub mod disagreements;
pub mod dns;
pub mod exchange;
pub mod fault;
pub mod fleet;
pub mod flows;
pub mod fragments;
pub mod guest;
pub mod icmp4;
#[cfg(target_arch = "x86_64")]
pub mod inside;
pub mod installation;
pub mod judge;
pub mod kernel_drops;
pub mod kernel_peer;
pub mod metrics;
pub mod mutations;
pub mod narrow;
pub mod nd;
pub mod netns;
pub mod numbered;
pub mod older_kernel;
pub mod package;
pub mod packet;
pub mod ping;
mod processes;
pub mod programs;
pub mod radvd;
pub mod raw;
pub mod reloading;
pub mod routers;
pub mod scene;
pub mod scratch_root;
pub mod service;
pub mod state;
pub mod steady;
pub mod topology;
pub mod traffic;
pub mod tried;
pub mod unit;
pub mod wait;
pub mod witness;
