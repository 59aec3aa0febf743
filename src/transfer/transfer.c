#include "transfer/transfer.h"

const struct transfer_times transfer_times = {
    .connect_ms = 10000,
    .handshake_ms = 10000,
    .request_ms = 10000,
    .stall_ms = 30000,
    .alive_ms = 5000,
    .frame_ms = 300000,
    .idle_ms = 600000,
    .silent_ms = 6 * 3600 * 1000,
    .checkpoint_ms = 10000,
    .retry_ms = 200,
    .retry_most_ms = 5000,
    .tries = 8,
};
