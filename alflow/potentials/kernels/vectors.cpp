// One vector register of channels, in the compiler's portable vector extension, and small dense matrix products.

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

#define PRAGMA(text) _Pragma(#text)
#define SUM(...) PRAGMA(omp simd reduction(+ : __VA_ARGS__))

typedef long long i64;
typedef real V __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
enum { VL = VECTOR_BYTES / sizeof(real) };

static inline V load(const real *p) { return *reinterpret_cast<const V *>(p); }
static inline void store(real *p, V v) { *reinterpret_cast<V *>(p) = v; }
static inline void add(real *p, V v) { store(p, load(p) + v); }

// Sums of the lanes of many registers at once. Two registers whose groups of `group` lanes are still to be summed become
// one of groups of half the size, in the same order, until the groups are single lanes: VL registers end as one.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES
#endif
#endif
#ifdef SHUFFLES
template <int group, int half, int... t> static inline V halves(V x, V y, std::integer_sequence<int, t...>) {
    return __builtin_shufflevector(x, y, (t / (group / 2) * group + half * (group / 2) + t % (group / 2))...);
}
template <int group> static inline V fold(const V *v) {
    if constexpr (group == VL) {
        return *v;
    } else {
        const V x = fold<2 * group>(v), y = fold<2 * group>(v + VL / (2 * group));
        const auto lanes = std::make_integer_sequence<int, VL>();
        return halves<2 * group, 0>(x, y, lanes) + halves<2 * group, 1>(x, y, lanes);
    }
}
static inline V totals(const V *v) { return fold<1>(v); }
#else
static inline V totals(const V *v) {
    V sums = {};
    for (int i = 0; i < VL; i++)
        for (int lane = 0; lane < VL; lane++) sums[i] += v[i][lane];
    return sums;
}
#endif

// A product of components for a block of atoms, or what belongs to it; see _generate.py.
typedef void (*Map)(const real *const *x, real *const *z, const i64 *ldz, real *const *gx, i64 atoms, i64 C);
enum { VALUE, ADJOINT, TANGENT, TANGENT_ADJOINT };

// Channels that a caller must give are a multiple of this.
extern "C" int vector_length() { return VL; }

// ---- small dense matrix products ---------------------------------------------------------------------------------------
// c (M, N) = or += a (M, K) b (K, N); a[i, k] = a[i * row + k * column]; N a multiple of VL.

template <int ROWS, int VECTORS>
static inline void tile(i64 K, const real *a, i64 row, i64 column, const real *b, i64 ldb, real *c, i64 ldc, bool sum) {
    V x[ROWS][VECTORS];
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < VECTORS; v++) x[i][v] = sum ? load(c + i * ldc + v * VL) : V{};
    for (i64 k = 0; k < K; k++) {
        V right[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) right[v] = load(b + k * ldb + v * VL);
        UNROLL for (int i = 0; i < ROWS; i++) {
            const real left = a[i * row + k * column];
            UNROLL for (int v = 0; v < VECTORS; v++) x[i][v] += left * right[v];
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < VECTORS; v++) store(c + i * ldc + v * VL, x[i][v]);
}

// As many accumulators as registers hold: 8 x 2 of 32 with AVX-512, 6 x 2 of 16 with AVX, 8 x 2 of 32 with NEON.
#if VECTOR_BYTES == 32
enum { TILE_ROWS = 6 };
#else
enum { TILE_ROWS = 8 };
#endif

template <int VECTORS>
static void strip(i64 M, i64 K, const real *a, i64 row, i64 column, const real *b, i64 ldb, real *c, i64 ldc, bool sum) {
    i64 i = 0;
    for (; i + TILE_ROWS <= M; i += TILE_ROWS)
        tile<TILE_ROWS, VECTORS>(K, a + i * row, row, column, b, ldb, c + i * ldc, ldc, sum);
    for (; i + 2 <= M; i += 2) tile<2, VECTORS>(K, a + i * row, row, column, b, ldb, c + i * ldc, ldc, sum);
    for (; i < M; i++) tile<1, VECTORS>(K, a + i * row, row, column, b, ldb, c + i * ldc, ldc, sum);
}

static void multiply(i64 M, i64 N, i64 K, const real *a, i64 row, i64 column, const real *b, i64 ldb, real *c, i64 ldc,
                     bool sum) {
    i64 j = 0;
    for (; j + 2 * VL <= N; j += 2 * VL) strip<2>(M, K, a, row, column, b + j, ldb, c + j, ldc, sum);
    for (; j < N; j += VL) strip<1>(M, K, a, row, column, b + j, ldb, c + j, ldc, sum);
}

