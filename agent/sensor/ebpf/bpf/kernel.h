/*
 * What these programs use of the kernel, and nothing else. The field offsets
 * here mean nothing: every access to a structure is relocated to the running
 * kernel's own layout when the programs are loaded (CO-RE). A structure with
 * ___ in its name is another version's layout of the one before the ___.
 */
#pragma once

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_NO_PREALLOC 1
#define BPF_F_CLONE (1 << 9)
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0

#define S_IFMT 0170000
#define S_IFIFO 0010000
#define S_IFSOCK 0140000
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define SIGNAL_GROUP_EXIT 4
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3, TCP_CLOSE = 7, TCP_LISTEN = 10 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;

struct ns_common { u32 inum; };
struct pid_namespace { struct ns_common ns; };
struct net { struct ns_common ns; };
struct upid { int nr; struct pid_namespace *ns; };
struct pid { u32 level; struct upid numbers[1]; };

struct cred { kuid_t uid; kgid_t gid; kuid_t euid; kgid_t egid; };

struct vfsmount { struct dentry *mnt_root; };
struct mount { struct mount *mnt_parent; struct dentry *mnt_mountpoint; struct vfsmount mnt; };
struct qstr { const unsigned char *name; };
struct dentry { struct dentry *d_parent; struct qstr d_name; };
struct path { struct vfsmount *mnt; struct dentry *dentry; };

struct timespec64 { __s64 tv_sec; long tv_nsec; };
struct super_block { u32 s_dev; };
struct inode {
	u16 i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	struct super_block *i_sb;
	unsigned long i_ino;
	u32 i_nlink;
	__s64 i_size;
	__s64 i_ctime_sec; /* since 6.11 */
	u32 i_ctime_nsec;
};
struct inode___v66 { struct timespec64 __i_ctime; };
struct inode___v0 { struct timespec64 i_ctime; };

struct file { struct inode *f_inode; struct path f_path; void *private_data; };
struct fdtable { struct file **fd; };
struct files_struct { struct fdtable *fdt; };
struct fs_struct { struct path pwd; };
struct linux_binprm { struct file *file; };

typedef struct { int counter; } atomic_t;
struct tty_struct { char name[64]; };
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID, PIDTYPE_SID, PIDTYPE_MAX };
struct signal_struct {
	atomic_t live;
	int nr_threads;
	int group_exit_code;
	u32 flags;
	struct pid *pids[PIDTYPE_MAX];
	struct tty_struct *tty;
};
struct mm_struct { unsigned long arg_start, arg_end; };
struct task_struct {
	int pid, tgid, exit_code;
	struct task_struct *real_parent, *group_leader;
	struct pid *thread_pid;
	u64 start_boottime;
	const struct cred *cred;
	char comm[16];
	struct fs_struct *fs;
	struct files_struct *files;
	struct signal_struct *signal;
	struct mm_struct *mm;
	kuid_t loginuid; /* with CONFIG_AUDIT */
};

struct in6_addr { u8 s6_addr[16]; };
typedef struct { struct net *net; } possible_net_t;
struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	u16 skc_num, skc_family;
	u8 skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};
struct sock { struct sock_common __sk_common; u16 sk_protocol; int sk_err; };
struct socket { struct sock *sk; };

struct seq_file { void *private; };
struct bpf_iter_meta { struct seq_file *seq; };
struct bpf_iter__task {
	union { struct bpf_iter_meta *meta; u64 meta_u64; };
	union { struct task_struct *task; u64 task_u64; };
};
struct bpf_iter__task_file {
	union { struct bpf_iter_meta *meta; u64 meta_u64; };
	union { struct task_struct *task; u64 task_u64; };
	u32 fd __attribute__((aligned(8)));
	union { struct file *file; u64 file_u64; };
};

#pragma clang attribute pop
