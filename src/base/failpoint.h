// Failpoints: named places between two lasting effects, at which tests end a process. Each costs one branch while FLOCKER_FAILPOINT is
// not set.
//
//     FLOCKER_FAILPOINT=NAME[:N[:ACTION]]
//
// The Nth time (default: the first) that the process which read the variable, or a worker forked from it, comes to NAME:
//     kill    (default) the process that is there gets SIGKILL: the agent, control, or one worker
//     hang    it sleeps for ever
//     error   the step fails with E_IO; only where there is a FAILPOINT_ERROR, elsewhere nothing happens
// Each happens once, and is told on stderr.
#ifndef FLOCKER_BASE_FAILPOINT_H
#define FLOCKER_BASE_FAILPOINT_H

#include "base/error.h"

#include <stdbool.h>

// The first word says where it is: control; agent; worker (any step of one), pool, create, update, mount, unmount, destroy, shutdown,
// transfer: a worker, except that the agent opens a pool, too; file: any of them.
#define FAILPOINT_TABLE(X) \
    /*  name                              what has happened there | what has not */ \
    X(CONTROL_STORE_MADE,      "control.store-made")      /* a new store is complete | it has its name */ \
    X(CONTROL_LOADED,          "control.loaded")          /* the store is open and read | anybody is answered */ \
    X(CONTROL_WRITTEN,         "control.written")         /* a change is written to the store | committed */ \
    X(CONTROL_COMMITTED,       "control.committed")       /* it is committed | known in memory, told to the agent */ \
    X(CONTROL_TOLD,            "control.told")            /* the agent's wish is carried out and told | answered */ \
    X(CONTROL_HELLO,           "control.hello")           /* an agent's node is remembered | welcomed */ \
    X(CONTROL_REPORT,          "control.report")          /* a report came | anything follows from it */ \
    X(CONTROL_WANTS_SENT,      "control.wants-sent")      /* an agent has been told what is wanted | that this was all */ \
    X(CONTROL_REST_REPLY,      "control.rest-reply")      /* a client's wish is carried out | answered */ \
    X(AGENT_POOL_READ,         "agent.pool-read")         /* the pool was read by a worker | opened by the agent */ \
    X(AGENT_POOL_OPEN,         "agent.pool-open")         /* the pool is open | references are loaded */ \
    X(AGENT_REFS_LOADED,       "agent.refs-loaded")       /* references are loaded | control is asked, anything is done */ \
    X(AGENT_HELLO,             "agent.hello")             /* control was greeted | it has answered */ \
    X(AGENT_WANT,              "agent.want")              /* an order of control came | it is known */ \
    X(AGENT_SYNCED,            "agent.synced")            /* all orders are known | those that wait for that go on */ \
    X(AGENT_CREATE_ASKED,      "agent.create-asked")      /* control was asked for a volume | it has answered */ \
    X(AGENT_CREATE_ANSWERED,   "agent.create-answered")   /* control has the volume | it is made */ \
    X(AGENT_CREATE_REPLY,      "agent.create-reply")      /* a volume is made | the engine hears of it */ \
    X(AGENT_FOUND,             "agent.found")             /* control has said what there is | the engine hears of it */ \
    X(AGENT_RELEASED,          "agent.released")          /* a volume is kept free for another node | control hears of it */ \
    X(AGENT_STEP_START,        "agent.step-start")        /* a step is planned | its worker is forked */ \
    X(AGENT_STEP_DONE,         "agent.step-done")         /* a worker has done its step | the agent takes note */ \
    X(AGENT_STEP_REPORTED,     "agent.step-reported")     /* the step is reported to control | those that wait for it go on */ \
    X(AGENT_REF_OPENED,        "agent.ref-opened")        /* the volume is mounted for an engine | the reference is saved */ \
    X(AGENT_MOUNT_REPLY,       "agent.mount-reply")       /* the reference is saved | the engine hears of the mount */ \
    X(AGENT_MOUNT_SENT,        "agent.mount-sent")        /* the engine has the answer | the reference counts */ \
    X(AGENT_MOUNT_SETTLED,     "agent.mount-settled")     /* the reference counts | anything else */ \
    X(AGENT_REF_RELEASED,      "agent.ref-released")      /* an Unmount came | the reference is gone from its file */ \
    X(AGENT_UNMOUNT_SAVED,     "agent.unmount-saved")     /* it is gone from its file | the volume is unmounted, the engine hears of it */ \
    X(AGENT_REMOVE_CHECKED,    "agent.remove-checked")    /* nothing uses the volume | control is asked to trash it */ \
    X(AGENT_REMOVE_ASKED,      "agent.remove-asked")      /* control was asked | it has answered */ \
    X(AGENT_REMOVE_ANSWERED,   "agent.remove-answered")   /* the volume is in the trash | its references are gone */ \
    X(AGENT_REMOVE_REPLY,      "agent.remove-reply")      /* its references are gone | the engine hears of it */ \
    X(WORKER_START,            "worker.start")            /* a worker was forked | it does anything */ \
    X(WORKER_DONE,             "worker.done")             /* its work is done | its answer is written */ \
    X(TRANSFER_GRANTED,        "transfer.granted")        /* a request for a snapshot is granted | the snapshot is chosen, or made */ \
    X(TRANSFER_CHOSEN,         "transfer.chosen")         /* it is there, older ones are dropped | the target hears of it */ \
    X(TRANSFER_SENT,           "transfer.sent")           /* a chunk is sent | the next one is */ \
    X(TRANSFER_NOTED,          "transfer.noted")          /* the digest of the stream is noted | its end is sent */ \
    X(TRANSFER_ASKED,          "transfer.asked")          /* the target has asked | the source has answered */ \
    X(TRANSFER_APPLIED,        "transfer.applied")        /* a chunk is applied | a checkpoint says so */ \
    X(TRANSFER_CHECKED,        "transfer.checked")        /* all has come, and is right | the copy says so */ \
    X(FILE_WRITTEN,            "file.written")            /* a new version of a file is on disk | it has its name */ \
    X(FILE_RENAMED,            "file.renamed")            /* it has its name | that is durable */ \
    X(POOL_FILE_SIZED,         "pool.file-sized")         /* a new pool's file has its size | a file system */ \
    X(POOL_FORMATTED,          "pool.formatted")          /* the file system is made | the file has its name */ \
    X(POOL_NAMED,              "pool.named")              /* the file has its name | a loop device */ \
    X(POOL_ATTACHED,           "pool.attached")           /* the loop device is attached | mounted */ \
    X(POOL_MOUNTED,            "pool.mounted")            /* the pool is mounted | private, laid out */ \
    X(POOL_MARKED,             "pool.marked")             /* pool.json is there | the directories */ \
    X(POOL_LAID_OUT,           "pool.laid-out")           /* the directories are there | quotas are on */ \
    X(POOL_QUOTAS_ON,          "pool.quotas-on")          /* quotas are on | mount points are shared */ \
    X(CREATE_STAGED,           "create.staged")           /* the staging directory is made | the subvolume */ \
    X(CREATE_DATA_MADE,        "create.data-made")        /* the subvolume is made | its owner, mode and limit are set */ \
    X(CREATE_LIMITED,          "create.limited")          /* they are set | the record is written */ \
    X(CREATE_RECORDED,         "create.recorded")         /* the record is written | the volume has its place */ \
    X(CREATE_PLACED,           "create.placed")           /* it has its place | that is durable */ \
    X(UPDATE_LIMITED,          "update.limited")          /* the new limit is in force | the record says so */ \
    X(UPDATE_RECORDED,         "update.recorded")         /* the record is written | the limit is durable */ \
    X(MOUNT_POINT_MADE,        "mount.point-made")        /* the mount point is made | anything is mounted there */ \
    X(MOUNT_DONE,              "mount.done")              /* the volume is mounted | the agent knows */ \
    X(UNMOUNT_CHECKED,         "unmount.checked")         /* no container has it | it is unmounted */ \
    X(UNMOUNT_DONE,            "unmount.done")            /* it is unmounted | looked for again in containers */ \
    X(UNMOUNT_CLEARED,         "unmount.cleared")         /* the mount point is removed | the agent knows */ \
    X(DESTROY_STAGED,          "destroy.staged")          /* the volume is in staging | deleted */ \
    X(DESTROY_DATA_DELETED,    "destroy.data-deleted")    /* the subvolume is deleted | the record */ \
    X(DESTROY_CLEARED,         "destroy.cleared")         /* all of it is deleted | that is durable */ \
    X(TRANSFER_SNAPSHOT,       "transfer.snapshot")       /* a snapshot is made | anybody knows */ \
    X(TRANSFER_DROPPED,        "transfer.dropped")        /* a snapshot's digest is removed | the snapshot */ \
    X(TRANSFER_PART_MADE,      "transfer.part-made")      /* there is a subvolume to receive into | its quota group, anything in it */ \
    X(TRANSFER_MARK_NOTED,     "transfer.mark-noted")     /* a checkpoint's state is written | its snapshot */ \
    X(TRANSFER_MARKED,         "transfer.marked")         /* a checkpoint is made | the one before it is removed */ \
    X(TRANSFER_COPIED,         "transfer.copied")         /* what was received is the copy | what it replaces is removed */ \
    X(TRANSFER_SHARED,         "transfer.shared")         /* the volume that a copy becomes is made in staging | its record */ \
    X(TRANSFER_PLACED,         "transfer.placed")         /* the volume has its place | the copy is removed */ \
    X(TRANSFER_DISCARDED,      "transfer.discarded")      /* the copy is removed | that is durable */ \
    X(SHUTDOWN_VOLUMES,        "shutdown.volumes")        /* volumes are unmounted | the pool is */ \
    X(SHUTDOWN_POOL,           "shutdown.pool")           /* the pool is unmounted | its loop device is seen to be gone */

enum failpoint {
#define X(id, name) FAIL_##id,
    FAILPOINT_TABLE(X)
#undef X
    FAILPOINT_COUNT
};

// The one that FLOCKER_FAILPOINT names; FAILPOINT_COUNT: none.
extern enum failpoint failpoint_armed;

// Reads the variable, once, before any fork. E_INVALID if it makes no sense.
int failpoint_init(struct error *e);
// Counts; kills or hangs here. True: the step is to fail.
bool failpoint_hit(enum failpoint point);

static inline bool failpoint(enum failpoint point)
{
    return __builtin_expect(point == failpoint_armed, false) && failpoint_hit(point);
}

#define FAILPOINT(id) ((void)failpoint(FAIL_##id))
#define FAILPOINT_ERROR(id, e) (failpoint(FAIL_##id) ? fail((e), E_IO, "failpoint") : 0)

#endif
