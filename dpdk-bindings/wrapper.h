/* What dpdk-sys binds, and what bindgen cannot express by itself.
 *
 * The field layout of rte_mbuf differs between DPDK versions (anonymous unions), so its offsets are
 * taken here by the compiler and used by the accessors in src/mbuf.rs. Flags are function-like
 * macros in DPDK, so they become constants here. Declarations below SHIM are in shim.c. */
#ifndef SLUICE_WRAPPER_H
#define SLUICE_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_thash.h>
#include <rte_version.h>

enum sluice_mbuf_offset {
	SLUICE_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SLUICE_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SLUICE_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	SLUICE_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SLUICE_MBUF_PORT = offsetof(struct rte_mbuf, port),
	SLUICE_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SLUICE_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SLUICE_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SLUICE_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SLUICE_MBUF_HASH_USR = offsetof(struct rte_mbuf, hash.usr),
	SLUICE_MBUF_SIZE = sizeof(struct rte_mbuf),
};

static const uint32_t SLUICE_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint16_t SLUICE_PORT_INVALID = RTE_MBUF_PORT_INVALID;
static const int SLUICE_SOCKET_ID_ANY = SOCKET_ID_ANY;

static const uint64_t SLUICE_MBUF_F_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t SLUICE_MBUF_F_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t SLUICE_MBUF_F_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t SLUICE_MBUF_F_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SLUICE_MBUF_F_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SLUICE_MBUF_F_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;

static const uint64_t SLUICE_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SLUICE_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t SLUICE_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SLUICE_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SLUICE_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t SLUICE_RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t SLUICE_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint16_t SLUICE_RETA_GROUP_SIZE = RTE_ETH_RETA_GROUP_SIZE;
static const uint32_t SLUICE_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t SLUICE_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;

static const uint32_t SLUICE_ETH_EVENT_REMOVED = RTE_ETH_EVENT_INTR_RMV;
static const uint32_t SLUICE_ETH_EVENT_RESET = RTE_ETH_EVENT_INTR_RESET;
static const uint32_t SLUICE_DEV_EVENT_REMOVED = RTE_DEV_EVENT_REMOVE;

static const uint32_t SLUICE_RING_F_SP_ENQ = RING_F_SP_ENQ;
static const uint32_t SLUICE_RING_F_SC_DEQ = RING_F_SC_DEQ;
static const uint32_t SLUICE_RING_F_EXACT_SZ = RING_F_EXACT_SZ;

/* SHIM: DPDK's static inline functions, given a symbol. */
int sluice_errno(void);
uint64_t sluice_rdtsc(void);
unsigned int sluice_lcore_id(void);
int sluice_eth_link_up(uint16_t port);
uint32_t sluice_eth_link_speed(uint16_t port);
struct rte_mempool *sluice_pktmbuf_pool_create(const char *name, unsigned int mbufs,
					       unsigned int cache, uint16_t data_room,
					       int socket, int packed);
struct rte_mbuf *sluice_pktmbuf_alloc(struct rte_mempool *pool);
int sluice_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void sluice_pktmbuf_free(struct rte_mbuf *mbuf);
int sluice_pktmbuf_linearize(struct rte_mbuf *mbuf);
uint16_t sluice_pktmbuf_data_room_size(struct rte_mempool *pool);
unsigned int sluice_ring_sp_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *mbufs,
					  unsigned int count);
unsigned int sluice_ring_sc_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs,
					  unsigned int count);

/* SHIM, reference: src/burst.rs and src/mbuf.rs do the same in Rust, and so does the data plane's
 * Toeplitz hash; tests compare. */
uint16_t sluice_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t sluice_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
void *sluice_pktmbuf_mtod(struct rte_mbuf *mbuf);
uint16_t sluice_pktmbuf_data_len(const struct rte_mbuf *mbuf);
uint32_t sluice_pktmbuf_pkt_len(const struct rte_mbuf *mbuf);
uint16_t sluice_pktmbuf_headroom(const struct rte_mbuf *mbuf);
uint16_t sluice_pktmbuf_tailroom(const struct rte_mbuf *mbuf);
uint16_t sluice_mbuf_nb_segs(const struct rte_mbuf *mbuf);
uint16_t sluice_mbuf_port(const struct rte_mbuf *mbuf);
uint64_t sluice_mbuf_ol_flags(const struct rte_mbuf *mbuf);
uint16_t sluice_mbuf_refcnt(const struct rte_mbuf *mbuf);
uint32_t sluice_mbuf_hash_usr(const struct rte_mbuf *mbuf);
void sluice_mbuf_fill(struct rte_mbuf *mbuf, uint16_t data_off, uint16_t data_len, uint32_t pkt_len,
		      uint16_t port, uint64_t ol_flags, uint32_t hash_usr);
uint32_t sluice_softrss(uint32_t *tuple, uint32_t words, const uint8_t *key);
int sluice_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);

#endif
