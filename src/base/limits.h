// Limits of the product: what a user can meet, and what keeps input from outside from growing a process. A limit that a user can meet is
// named in the error that they get. Delays and limits of one file's own doings stand in that file.
#ifndef FLOCKER_BASE_LIMITS_H
#define FLOCKER_BASE_LIMITS_H

#define NAME_BYTES_MAX        255            // a volume's name; Docker's anonymous volumes use 64
#define METADATA_ITEMS_MAX    16             // Flocker v1: members of `metadata`
#define METADATA_CHARS_MAX    256            // Flocker v1: characters of a metadata key or value
#define VOLUMES_MAX           1000000        // volumes of a cluster
#define NODES_MAX             4096
#define VOLUME_SIZE_MIN       (64ULL << 20)  // Flocker v1: smallest maximum_size
#define VOLUME_SIZE_MAX       (1ULL << 62)
#define VOLUME_SIZE_UNIT      1024ULL        // Flocker v1: maximum_size is a multiple of it

#define JSON_DEPTH_MAX        32
#define HTTP_BODY_BYTES_MAX   (1U << 20)
#define HTTP_HEAD_BYTES_MAX   (16U << 10)    // request line and headers together
#define HTTP_HEADERS_MAX      64
#define HTTP_CONNECTIONS_MAX  512            // of one listener
#define HTTP_REQUEST_MS_MAX   10000          // from accept, or the end of the last reply, to the last byte of a request
#define HTTP_REPLY_MS_MAX     30000          // for the peer to take a reply, or a piece of one that comes in pieces
#define PAGE_VOLUMES          1000           // volumes in one answer of a list of API v2, unless said otherwise
#define PAGE_VOLUMES_MAX      10000
#define LINE_BYTES_MAX        (64U << 10)    // one message of the agent protocol
#define LINE_BACKLOG_MAX      (64U << 20)    // unsent bytes to one agent before it is dropped
#define LINE_FULL             (256U << 10)   // unsent bytes to one agent from which on what can wait does
#define LINE_ALIVE_MS         5000           // over a network, each side says at least this often that it is there
#define LINE_SILENT_MS        20000          // and takes the other for gone when it has heard nothing for this long

#define CONTAINERS_MAX        10000          // containers of a cluster (API v1)
#define CONTAINER_NAME_MAX    200            // characters of a container's name
#define CONTAINER_BYTES_MAX   (40U << 10)    // a container's settings as JSON: they go to the agent in one message
#define CONTAINER_JOBS_MAX    4              // at once with the engine of a node: their workers are not those of volumes

#define HOLDS_MAX             100000         // of a cluster
#define WAITERS_MAX           256            // clients that wait for an effect; one more is answered at once. With the asks well below
                                             // HTTP_CONNECTIONS_MAX: a connection that waits for its answer is never given up for another
#define WAIT_S_MAX            30             // the most that a client can wait
#define ASKS_MAX              128            // questions to agents that they have not answered
#define ASKS_OF_NODE_MAX      64             // of those, to one: who is silent does not keep the others from being asked
#define PEERS_MAX             (NODES_MAX + 64) // connections of agents: of each node, and some that have not said hello
#define WATCHES_MAX           100000         // volumes of other nodes that a node has asked for
#define CLUSTER_WATCHES_MAX   1000000        // of all nodes together
#define PEER_PORT             4525           // where agents listen for each other, unless they say otherwise
#define JOINERS_MAX           8              // hosts that ask to join at once
#define USERS_MAX             10000          // whose certificates were revoked
#define TOKENS_MAX            1024           // join tokens that are neither used nor over
#define TOKEN_TTL_S           3600           // how long a join token is good, unless said otherwise
#define TOKEN_TTL_S_MAX       (30 * 86400)
#define CSR_BYTES_MAX         8192           // a request for a certificate, as PEM
#define CONFIG_BYTES_MAX      (64U << 10)    // agent.yml
#define CONFIG_DEPTH_MAX      8

#define TRANSFER_LINE_MAX     (4U << 10)     // a request for a snapshot, and the answer to it
#define TRANSFER_CHUNK        (1U << 20)     // plain bytes of one frame, and the unit of digests: fixed by the protocol
#define TRANSFER_BYTES_MAX    (1ULL << 62)   // of one stream
#define TRANSFER_QUEUE        4              // chunks in memory at each end

#define PLUGIN_ANSWER_MS      3500           // every plugin call is answered by then; Podman gives up at 5 s
#define WORKER_MS_MAX         60000          // a worker that takes longer is reported as stuck
#define WORKERS_MAX           16             // running at once on a node
#define FETCHES_MAX           4              // volumes that a node fetches at once; twice that if engines wait for them
#define SERVINGS_MAX          32             // fetches of other nodes that an agent serves at once
#define SERVINGS_OF_NODE_MAX  16             // of these, of one node: all that it has at once, and as many again whose connections broke
#define WORKER_ANSWER_MAX     (64U << 20)    // or a part of one that comes in parts, as that of a large pool
#define MOUNT_IDS_MAX         4096           // references (mount ID, engine) of one volume
#define OPTIONS_MAX           64             // options of one plugin Create
#define SEND_COMMAND_BYTES_MAX (1U << 20)    // one command of a btrfs send stream; kernels write up to 144 KiB
#define SEND_PATH_BYTES_MAX   4095           // a path in it, and the target of a symbolic link
#define TRASH_KEEP_S          (24 * 3600)    // a removed volume can be restored for this long

#endif
