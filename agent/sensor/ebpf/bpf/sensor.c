/*
 * The sensor's kernel side: processes and TCP connections, as records in a
 * ring buffer. record.go reads what is written here; the structures below and
 * the offsets there change together.
 *
 * Only BTF tracepoints are used: they need no kprobes, no trampolines and no
 * LSM. A record is reserved or dropped and counted; nothing here waits.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum kind { FORK = 1, EXEC, EXIT, CONNECT, CONNECT_FAILED, ACCEPT, LISTEN, KINDS };

#define ARGS_MAX 4096
#define PATH_MAX 2048
#define CWD_MAX 1024
#define NAME_MAX 255
#define COMPONENTS 48

#define ARGS_TRUNCATED 1
#define PATH_TRUNCATED 2
#define ARGS_MISSING 4
#define CWD_TRUNCATED 8
#define THREADED 16

/* What the process's standard input and output are. */
enum stdio { OTHER, PIPE, SOCKET, INET_SOCKET };

struct head {
	u64 time; /* ns since boot */
	u32 kind;
	u32 size;
};

struct who {
	u64 start; /* ns since boot, of the thread group leader */
	u64 parent_start;
	u64 cgroup;
	u32 pid, ppid; /* in the agent's pid namespace */
	u32 uid, euid, gid, egid;
	u32 loginuid, session;
	u32 pidns; /* inode of the innermost pid namespace */
	u32 flags;
	char comm[16];
};

struct process {
	struct head head;
	struct who who;
};

struct exit {
	struct head head;
	struct who who;
	u32 code; /* as wait(2) reports it */
	u32 pad;
};

struct image {
	u64 inode, size, ctime;
	u32 ctime_ns, dev, mode, uid, gid, nlink;
	char tty[16];
	u8 in, out;
	u16 path, cwd, args; /* bytes of each part of data, in this order */
};

struct exec {
	struct head head;
	struct who who;
	struct image image;
	char data[PATH_MAX + CWD_MAX + ARGS_MAX + 1024]; /* room for the last component of each path */
};

struct owner {
	u64 start;
	u32 pid, uid;
};

struct net_record {
	struct head head;
	struct owner owner;
	u16 family, local_port, remote_port, error;
	u32 netns, pad;
	u8 local[16], remote[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

/* Records by kind: written, then dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * KINDS);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");

/* Where an exec record is put together. Only one program uses it, in process
 * context with preemption off, so that no two can meet. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct exec);
} scratch SEC(".maps");

/* Who connects or listens. State changes arrive in interrupts, on behalf of
 * nobody; the socket remembers its owner, and a socket that is accepted is
 * born with its listener's. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct owner);
} owners SEC(".maps");

/* Who listened with multipath TCP, which is what Go does, before the sensor
 * was there: such a listener's connections come from another socket, which
 * cannot be reached from it. By network namespace and port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct owner);
} old_listeners SEC(".maps");

/* The same where a tracing program may not use a socket's own storage, which
 * is before Linux 5.11: who connects, by the socket's address until it is
 * known how that ends, and who listens, by network namespace and port. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct owner);
} connecting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct owner);
} listeners SEC(".maps");

const volatile u32 agent_pidns = 0;
const volatile u64 wake_bytes = 512 << 10;
const volatile u64 wake_ns = 8000000;

u64 last_wake = 0;

static __always_inline void count(u32 kind, int dropped)
{
	u32 key = dropped ? kind + KINDS : kind;
	u64 *n = bpf_map_lookup_elem(&counts, &key);

	if (n)
		(*n)++;
}

/* The reader looks every few milliseconds by itself while records come, so it
 * is woken for the first one after a pause and when much waits. */
static __always_inline u64 wake(u64 now)
{
	if (now - last_wake > wake_ns || bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wake_bytes) {
		last_wake = now;
		return BPF_RB_FORCE_WAKEUP;
	}
	return BPF_RB_NO_WAKEUP;
}

/* The number that a pid has in the agent's pid namespace, 0 outside of it. */
static __always_inline u32 pid_here(struct pid *pid)
{
	u32 level = BPF_CORE_READ(pid, level);
	void *at = __builtin_preserve_access_index(&pid->numbers);

	for (u32 i = 0; i < 8; i++) {
		struct pid_namespace *ns = 0;
		struct upid *id = at + i * bpf_core_type_size(struct upid);

		if (i > level)
			break;
		if (bpf_core_read(&ns, sizeof(ns), &id->ns) || !ns)
			break;
		if (BPF_CORE_READ(ns, ns.inum) == agent_pidns)
			return BPF_CORE_READ(id, nr);
	}
	return 0;
}

static __always_inline u32 innermost_pidns(struct pid *pid)
{
	u32 level = BPF_CORE_READ(pid, level);
	struct upid *id = (void *)__builtin_preserve_access_index(&pid->numbers) + level * bpf_core_type_size(struct upid);

	return BPF_CORE_READ(id, ns, ns.inum);
}

/* Describes the process of leader, 0 if it is none of this host's. */
static __always_inline int describe(struct who *w, struct task_struct *leader)
{
	struct pid *pid = BPF_CORE_READ(leader, thread_pid);
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent, group_leader);
	const struct cred *cred = BPF_CORE_READ(leader, cred);

	w->pid = pid_here(pid);
	if (!w->pid)
		return 0;
	w->start = BPF_CORE_READ(leader, start_boottime);
	w->pidns = innermost_pidns(pid);
	w->ppid = pid_here(BPF_CORE_READ(parent, thread_pid));
	w->parent_start = w->ppid ? BPF_CORE_READ(parent, start_boottime) : 0;
	w->uid = BPF_CORE_READ(cred, uid.val);
	w->euid = BPF_CORE_READ(cred, euid.val);
	w->gid = BPF_CORE_READ(cred, gid.val);
	w->egid = BPF_CORE_READ(cred, egid.val);
	w->session = pid_here(BPF_CORE_READ(leader, signal, pids[PIDTYPE_SID]));
	w->loginuid = bpf_core_field_exists(leader->loginuid) ? BPF_CORE_READ(leader, loginuid.val) : (u32)-1;
	w->cgroup = bpf_get_current_cgroup_id();
	w->flags = 0;
	bpf_core_read(w->comm, sizeof(w->comm), &leader->comm);
	return 1;
}

SEC("tp_btf/sched_process_fork")
int on_fork(u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];
	u64 now = bpf_ktime_get_boot_ns();
	struct process *r;

	if (child->pid != child->tgid)
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count(FORK, 1);
		return 0;
	}
	r->head.time = now;
	r->head.kind = FORK;
	r->head.size = sizeof(*r);
	if (!describe(&r->who, child)) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	bpf_ringbuf_submit(r, wake(now));
	count(FORK, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct signal_struct *sig = task->signal;
	u64 now = bpf_ktime_get_boot_ns();
	struct exit *r;

	if (BPF_CORE_READ(sig, live.counter) != 0) /* other threads live on */
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count(EXIT, 1);
		return 0;
	}
	r->head.time = now;
	r->head.kind = EXIT;
	r->head.size = sizeof(*r);
	if (!describe(&r->who, task->group_leader)) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	/* The last two threads can both see that none lives: the reader drops
	 * the second record. */
	if (BPF_CORE_READ(sig, nr_threads) > 1)
		r->who.flags |= THREADED;
	r->code = BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT ? BPF_CORE_READ(sig, group_exit_code) : task->exit_code;
	r->pad = 0;
	bpf_ringbuf_submit(r, wake(now));
	count(EXIT, 0);
	return 0;
}

/* Writes the names of a path at offset at, the last component first, each with
 * its terminating zero, and returns how many bytes; with the highest bit when
 * there was more. A global function, so that it is verified once. */
#define MORE 0x80000000
__attribute__((noinline)) u32 walk(u64 dentry, u64 vfsmount, u32 at, u32 max)
{
	struct dentry *d = (void *)dentry;
	struct mount *m = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
	u32 zero = 0, o = at;
	struct exec *e = bpf_map_lookup_elem(&scratch, &zero);

	if (!e)
		return 0;
	for (int i = 0; i < COMPONENTS; i++) {
		struct dentry *root = BPF_CORE_READ(m, mnt.mnt_root);
		struct dentry *up = BPF_CORE_READ(d, d_parent);
		long n;

		if (d == root) {
			struct mount *above = BPF_CORE_READ(m, mnt_parent);

			if (above == m)
				return o - at;
			d = BPF_CORE_READ(m, mnt_mountpoint);
			m = above;
			continue;
		}
		if (o - at > max)
			return (o - at) | MORE;
		if (o > PATH_MAX + CWD_MAX + 512) /* never: for the verifier */
			return 0;
		n = bpf_probe_read_kernel_str(&e->data[o], NAME_MAX + 1, BPF_CORE_READ(d, d_name.name));
		if (n <= 0)
			return (o - at) | MORE;
		o += n;
		if (d == up) /* of no mount: a memfd, or unmounted meanwhile */
			return o - at;
		d = up;
	}
	return (o - at) | MORE;
}

static __always_inline u8 stdio_of(struct file *f)
{
	u32 type = BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT;
	struct socket *s;
	u16 family;

	if (type == S_IFIFO)
		return PIPE;
	if (type != S_IFSOCK)
		return OTHER;
	s = BPF_CORE_READ(f, private_data);
	family = BPF_CORE_READ(s, sk, __sk_common.skc_family);
	return family == AF_INET || family == AF_INET6 ? INET_SOCKET : SOCKET;
}

SEC("tp_btf/sched_process_exec")
int on_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct file *file = bprm->file;
	struct inode *inode = file->f_inode;
	u64 now = bpf_ktime_get_boot_ns();
	u32 zero = 0, o = 0, n, size;
	struct exec *e = bpf_map_lookup_elem(&scratch, &zero);
	struct file **fds;
	struct file *f;
	struct tty_struct *tty;
	u64 args, arg_bytes;

	if (!e || !describe(&e->who, task->group_leader))
		return 0;
	e->image.inode = inode->i_ino;
	e->image.size = inode->i_size;
	e->image.mode = inode->i_mode;
	e->image.uid = BPF_CORE_READ(inode, i_uid.val);
	e->image.gid = BPF_CORE_READ(inode, i_gid.val);
	e->image.nlink = BPF_CORE_READ(inode, i_nlink);
	e->image.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	e->image.ctime = 0;
	e->image.ctime_ns = 0;
	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		e->image.ctime = BPF_CORE_READ(inode, i_ctime_sec);
		e->image.ctime_ns = BPF_CORE_READ(inode, i_ctime_nsec);
	} else if (bpf_core_field_exists(((struct inode___v66 *)0)->__i_ctime)) {
		e->image.ctime = BPF_CORE_READ((struct inode___v66 *)inode, __i_ctime.tv_sec);
		e->image.ctime_ns = BPF_CORE_READ((struct inode___v66 *)inode, __i_ctime.tv_nsec);
	} else if (bpf_core_field_exists(((struct inode___v0 *)0)->i_ctime)) {
		e->image.ctime = BPF_CORE_READ((struct inode___v0 *)inode, i_ctime.tv_sec);
		e->image.ctime_ns = BPF_CORE_READ((struct inode___v0 *)inode, i_ctime.tv_nsec);
	}

	e->image.tty[0] = 0;
	tty = BPF_CORE_READ(task, signal, tty);
	if (tty)
		bpf_probe_read_kernel_str(e->image.tty, sizeof(e->image.tty), &tty->name);

	fds = BPF_CORE_READ(task, files, fdt, fd);
	e->image.in = OTHER;
	e->image.out = OTHER;
	if (!bpf_probe_read_kernel(&f, sizeof(f), fds) && f)
		e->image.in = stdio_of(f);
	if (!bpf_probe_read_kernel(&f, sizeof(f), fds + 1) && f)
		e->image.out = stdio_of(f);

	n = walk((u64)BPF_CORE_READ(file, f_path.dentry), (u64)BPF_CORE_READ(file, f_path.mnt), 0, PATH_MAX - 256);
	if (n & MORE)
		e->who.flags |= PATH_TRUNCATED;
	n &= PATH_MAX - 1;
	e->image.path = n;
	o = n;

	n = walk((u64)BPF_CORE_READ(task, fs, pwd.dentry), (u64)BPF_CORE_READ(task, fs, pwd.mnt), o, CWD_MAX - 256);
	if (n & MORE)
		e->who.flags |= CWD_TRUNCATED;
	n &= CWD_MAX - 1;
	e->image.cwd = n;
	o += n;

	args = BPF_CORE_READ(task, mm, arg_start);
	arg_bytes = BPF_CORE_READ(task, mm, arg_end) - args;
	if (arg_bytes >= ARGS_MAX) {
		arg_bytes = ARGS_MAX - 1;
		e->who.flags |= ARGS_TRUNCATED;
	}
	n = arg_bytes & (ARGS_MAX - 1);
	if (o > PATH_MAX + CWD_MAX) /* never: for the verifier */
		return 0;
	if (bpf_probe_read_user(&e->data[o], n, (void *)args)) {
		e->who.flags |= ARGS_MISSING;
		n = 0;
	}
	e->image.args = n;
	o += n;

	size = __builtin_offsetof(struct exec, data) + o;
	e->head.time = now;
	e->head.kind = EXEC;
	e->head.size = size;
	if (size > sizeof(*e))
		return 0;
	count(EXEC, bpf_ringbuf_output(&ring, e, size, wake(now)) != 0);
	return 0;
}

static __always_inline int owner_of(struct owner *o, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	o->pid = pid_here(BPF_CORE_READ(leader, thread_pid));
	o->start = BPF_CORE_READ(leader, start_boottime);
	o->uid = BPF_CORE_READ(leader, cred, euid.val);
	return o->pid != 0;
}

static __always_inline u64 listener_key(struct sock *sk)
{
	return (u64)BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) << 32 | sk->__sk_common.skc_num;
}

/* Tells of a connection or a listener. One without an owner is of another
 * host, or older than the sensor. */
static __always_inline int tell(struct sock *sk, u32 kind, struct owner *owner)
{
	struct net_record *r;
	u64 now;

	if (!owner)
		return 0;
	now = bpf_ktime_get_boot_ns();
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count(kind, 1);
		return 0;
	}
	r->head.time = now;
	r->head.kind = kind;
	r->head.size = sizeof(*r);
	r->owner = *owner;
	r->family = sk->__sk_common.skc_family;
	r->local_port = sk->__sk_common.skc_num;
	r->remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	r->error = sk->sk_err;
	r->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	r->pad = 0;
	__builtin_memset(r->local, 0, sizeof(r->local));
	__builtin_memset(r->remote, 0, sizeof(r->remote));
	if (r->family == AF_INET) {
		*(u32 *)r->local = sk->__sk_common.skc_rcv_saddr;
		*(u32 *)r->remote = sk->__sk_common.skc_daddr;
	} else if (r->family == AF_INET6) {
		bpf_core_read(r->local, sizeof(r->local), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(r->remote, sizeof(r->remote), &sk->__sk_common.skc_v6_daddr);
	}
	bpf_ringbuf_submit(r, wake(now));
	count(kind, 0);
	return 0;
}

/* What a change of state means, 0 for nothing that is told. */
static __always_inline u32 kind_of(int from, int to)
{
	if (to == TCP_LISTEN)
		return LISTEN;
	if (to == TCP_ESTABLISHED && from == TCP_SYN_SENT)
		return CONNECT;
	if (to == TCP_ESTABLISHED && from == TCP_SYN_RECV)
		return ACCEPT;
	if (to == TCP_CLOSE && from == TCP_SYN_SENT)
		return CONNECT_FAILED;
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int on_state(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int from = ctx[1], to = ctx[2];
	u32 kind = kind_of(from, to);
	struct owner *owner;
	u64 key = 0;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (to == TCP_SYN_SENT || to == TCP_LISTEN) { /* connect(2) and listen(2), by the caller */
		struct owner caller = {};

		if (!owner_of(&caller, (void *)bpf_get_current_task()))
			return 0;
		owner = bpf_sk_storage_get(&owners, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (owner)
			*owner = caller;
		if (to == TCP_LISTEN) {
			key = listener_key(sk);
			bpf_map_delete_elem(&old_listeners, &key);
		}
	}
	if (!kind)
		return 0;
	owner = bpf_sk_storage_get(&owners, sk, 0, 0);
	if (!owner && kind == ACCEPT) {
		key = listener_key(sk);
		owner = bpf_map_lookup_elem(&old_listeners, &key);
	}
	return tell(sk, kind, owner);
}

SEC("tp_btf/inet_sock_set_state")
int on_state_by_address(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int from = ctx[1], to = ctx[2];
	u32 kind = kind_of(from, to);
	u64 address = (u64)sk, key;
	struct owner *owner;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (to == TCP_SYN_SENT || to == TCP_LISTEN) {
		struct owner caller = {};

		if (!owner_of(&caller, (void *)bpf_get_current_task()))
			return 0;
		if (to == TCP_SYN_SENT) {
			bpf_map_update_elem(&connecting, &address, &caller, BPF_ANY);
			return 0;
		}
		key = listener_key(sk);
		bpf_map_update_elem(&listeners, &key, &caller, BPF_ANY);
	}
	if (kind == LISTEN || kind == ACCEPT) {
		key = listener_key(sk);
		return tell(sk, kind, bpf_map_lookup_elem(&listeners, &key));
	}
	if (!kind)
		return 0;
	owner = bpf_map_lookup_elem(&connecting, &address);
	tell(sk, kind, owner);
	if (owner)
		bpf_map_delete_elem(&connecting, &address);
	return 0;
}

/* Sockets that were open before the sensor get their owners. */
SEC("iter/task_file")
int old_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct owner *owner, holder = {};
	struct socket *s;
	struct sock *sk;

	if (!task || !file)
		return 0;
	s = bpf_sock_from_file(file);
	if (!s)
		return 0;
	sk = s->sk;
	if (!sk || (sk->sk_protocol != IPPROTO_TCP && sk->sk_protocol != IPPROTO_MPTCP) || !owner_of(&holder, task))
		return 0;
	if (sk->sk_protocol == IPPROTO_MPTCP) {
		u64 key = listener_key(sk);

		if (sk->__sk_common.skc_state == TCP_LISTEN)
			bpf_map_update_elem(&old_listeners, &key, &holder, BPF_NOEXIST);
		return 0;
	}
	if (bpf_sk_storage_get(&owners, sk, 0, 0)) /* its first holder stays */
		return 0;
	owner = bpf_sk_storage_get(&owners, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (owner)
		*owner = holder;
	return 0;
}

/* Exact start times of the processes that run already. */
SEC("iter/task")
int old_processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct who w = {};

	if (!task || task->pid != task->tgid || !describe(&w, task))
		return 0;
	bpf_seq_write(ctx->meta->seq, &w, sizeof(w));
	return 0;
}
