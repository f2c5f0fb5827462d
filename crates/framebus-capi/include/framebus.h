/* Generated from crates/framebus-capi/src; do not edit. */

#ifndef FRAMEBUS_H
#define FRAMEBUS_H

#include <stddef.h>
#include <stdint.h>

/**
 * Status: done.
 */
#define FRAMEBUS_OK 0

/**
 * Status: nothing came within the timeout.
 */
#define FRAMEBUS_NONE 1

/**
 * Error: an argument is NULL, not UTF-8, or out of range.
 */
#define FRAMEBUS_ERROR_ARGUMENT -1

/**
 * Error: the instance does not run, or has no such camera (yet).
 */
#define FRAMEBUS_ERROR_ABSENT -2

/**
 * Error: the instance's name or folder cannot be used.
 */
#define FRAMEBUS_ERROR_INSTANCE -3

/**
 * Error: all places for readers are taken.
 */
#define FRAMEBUS_ERROR_FULL -4

/**
 * Error: this reader holds as many frames as it may; free one.
 */
#define FRAMEBUS_ERROR_HELD -5

/**
 * Error: the instance is of another version than this library.
 */
#define FRAMEBUS_ERROR_VERSION -6

/**
 * Error: the bus failed; close everything and connect again.
 */
#define FRAMEBUS_ERROR_TRANSPORT -7

/**
 * Error: a fault of this library.
 */
#define FRAMEBUS_ERROR_INTERNAL -8

/**
 * Outcome: inferred; the detections are the answer, also when there are none.
 */
#define FRAMEBUS_OUTCOME_OK 1

/**
 * Outcome: not inferred, by policy; the reason says which.
 */
#define FRAMEBUS_OUTCOME_SKIPPED 2

/**
 * Outcome: not inferred because it came too late or a newer one was there.
 */
#define FRAMEBUS_OUTCOME_DROPPED 3

/**
 * Outcome: inference failed; the message says why. Never "nothing was seen".
 */
#define FRAMEBUS_OUTCOME_FAILED 4

/**
 * Format: 8-bit luma plane, then interleaved Cb, Cr at half resolution.
 */
#define FRAMEBUS_FORMAT_NV12 842094158

/**
 * Format: one plane of interleaved 8-bit R, G, B.
 */
#define FRAMEBUS_FORMAT_RGB24 859981650

/**
 * Flag of frames and results: frames before this one are missing.
 */
#define FRAMEBUS_FLAG_DISCONTINUITY 1

/**
 * Flag: something moves. Says something only with FRAMEBUS_FLAG_MOTION_MEASURED.
 */
#define FRAMEBUS_FLAG_MOTION 2

/**
 * Flag: the picture is suspect.
 */
#define FRAMEBUS_FLAG_PICTURE_FAULT 4

/**
 * Flag: the frame was compared with the scene before it.
 */
#define FRAMEBUS_FLAG_MOTION_MEASURED 8

/**
 * Version of this header: records may get fields at their end, and functions may be
 * added, within one version. Compare it with framebus_abi_version().
 */
#define FRAMEBUS_ABI_VERSION 1

/**
 * A connection to an instance.
 */
typedef struct framebus_client framebus_client;

/**
 * A stream of one camera's frames.
 */
typedef struct framebus_frames framebus_frames;

/**
 * One camera's frames together with their results.
 */
typedef struct framebus_joined framebus_joined;

/**
 * A stream of results.
 */
typedef struct framebus_results framebus_results;

/**
 * One object in a frame.
 */
typedef struct framebus_detection {
  /**
   * Left, top, right, bottom in pixels of the frame.
   */
  float bbox[4];
  /**
   * Confidence, 0 to 1.
   */
  float score;
  /**
   * Class number of the model.
   */
  uint32_t class_id;
  /**
   * Track number of the camera; 0 when not tracked.
   */
  uint64_t track;
  /**
   * One bit per zone of the camera that the object is in.
   */
  uint64_t zones;
  /**
   * Rotation in radians, clockwise; 0 for axis-aligned boxes.
   */
  float angle;
  /**
   * Class name.
   */
  char label[44];
} framebus_detection;

/**
 * When each stage of a frame ended, CLOCK_MONOTONIC ns; 0 for a stage that the
 * frame did not reach. With the frame's own times they say where the
 * milliseconds went.
 */
typedef struct framebus_stage_times {
  /**
   * The buffer left the decoder (copied from the frame).
   */
  uint64_t capture_ns;
  /**
   * The frame was sent (copied from the frame).
   */
  uint64_t publish_ns;
  /**
   * The inference process took it from the bus.
   */
  uint64_t taken_ns;
  /**
   * It went to a worker as part of a batch.
   */
  uint64_t batched_ns;
  /**
   * It lies in the network's input.
   */
  uint64_t preprocessed_ns;
  /**
   * The network started.
   */
  uint64_t inference_start_ns;
  /**
   * The network ended.
   */
  uint64_t inference_end_ns;
  /**
   * Boxes are decoded and suppressed.
   */
  uint64_t decoded_ns;
  /**
   * Just before the result was sent.
   */
  uint64_t result_ns;
} framebus_stage_times;

/**
 * What became of one frame, a copy. Camera, epoch_ns and sequence name the frame.
 */
typedef struct framebus_result {
  /**
   * `count` objects; empty unless the outcome is FRAMEBUS_OUTCOME_OK.
   */
  const struct framebus_detection *detections;
  /**
   * Number of detections.
   */
  size_t count;
  /**
   * Camera name.
   */
  char camera[36];
  /**
   * FRAMEBUS_OUTCOME_*.
   */
  uint32_t outcome;
  /**
   * Why the frame was not inferred, such as "motion"; empty when it was. Never freed.
   */
  const char *reason;
  /**
   * Start of the frame's capture process, ns since 1970.
   */
  uint64_t epoch_ns;
  /**
   * Number of the frame within its epoch, without gaps at the camera.
   */
  uint64_t sequence;
  /**
   * Start of the publisher of results, ns since 1970.
   */
  uint64_t result_epoch_ns;
  /**
   * Number of the result within the publisher's epoch, without gaps.
   */
  uint64_t result_sequence;
  /**
   * Capture time by the wall clock, ns since 1970.
   */
  uint64_t wall_ns;
  /**
   * Presentation time in the stream, ns; UINT64_MAX when it has none.
   */
  uint64_t pts_ns;
  /**
   * When each stage of the frame ended.
   */
  struct framebus_stage_times times;
  /**
   * Frame width in pixels.
   */
  uint32_t width;
  /**
   * Frame height in pixels.
   */
  uint32_t height;
  /**
   * FRAMEBUS_FLAG_* bits.
   */
  uint32_t flags;
  /**
   * Detections that passed the thresholds but not max_detections.
   */
  uint32_t truncated;
  /**
   * Model name.
   */
  char model[52];
  /**
   * Backend that answered.
   */
  char backend[20];
  /**
   * Why inference failed; empty otherwise.
   */
  char message[132];
} framebus_result;

/**
 * What a reader counts.
 */
typedef struct framebus_counters {
  /**
   * Samples that were overwritten before this reader took them.
   */
  uint64_t lost;
  /**
   * Samples that were skipped because their header contradicted their payload.
   */
  uint64_t bad_headers;
  /**
   * How long the sample taken last had waited for this reader, ns.
   */
  uint64_t lag_ns;
  /**
   * Results of a joined camera whose frame was not there (any more).
   */
  uint64_t unmatched;
  /**
   * Zero; for counters to come.
   */
  uint64_t reserved[4];
} framebus_counters;

/**
 * A frame where its camera's process put it: the planes are mapped read-only, and a
 * write ends your process. They are valid until framebus_frame_free.
 */
typedef struct framebus_frame {
  /**
   * First byte of each plane; NULL for one that the format does not have. NV12: luma,
   * then Cb and Cr. RGB24: one plane.
   */
  const uint8_t *planes[4];
  /**
   * Bytes from one row of a plane to the next.
   */
  size_t strides[4];
  /**
   * Bytes of a plane, from its first row to the end of its last.
   */
  size_t sizes[4];
  /**
   * FRAMEBUS_FORMAT_*.
   */
  uint32_t format;
  /**
   * Width in pixels.
   */
  uint32_t width;
  /**
   * Height in pixels.
   */
  uint32_t height;
  /**
   * YCbCr matrix: 0 BT.601, 1 BT.709, 2 BT.2020.
   */
  uint32_t matrix;
  /**
   * Sample range: 0 limited (Y in 16 to 235), 1 full.
   */
  uint32_t range;
  /**
   * Horizontal position of chroma samples: 0 left, 1 centre.
   */
  uint32_t chroma_site;
  /**
   * FRAMEBUS_FLAG_* bits.
   */
  uint32_t flags;
  /**
   * Share of the picture that moved, 0 to 1; 0 when not measured.
   */
  float motion;
  /**
   * Camera name.
   */
  char camera[36];
  /**
   * Start of the capture process, ns since 1970.
   */
  uint64_t epoch_ns;
  /**
   * Number within the epoch, without gaps at the camera.
   */
  uint64_t sequence;
  /**
   * When the buffer left the decoder, CLOCK_MONOTONIC ns.
   */
  uint64_t capture_ns;
  /**
   * When it was sent, CLOCK_MONOTONIC ns.
   */
  uint64_t publish_ns;
  /**
   * Capture time by the wall clock, ns since 1970.
   */
  uint64_t wall_ns;
  /**
   * Presentation time in the stream, ns; UINT64_MAX when it has none.
   */
  uint64_t pts_ns;
} framebus_frame;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * FRAMEBUS_ABI_VERSION of the library. Another one than the header's: this program was
 * built for another library; do not call anything else.
 */
uint32_t framebus_abi_version(void);

/**
 * What the last call that failed in this thread says, and what to do. Valid until the
 * next call in this thread that fails; never NULL, never freed.
 */
const char *framebus_last_error(void);

/**
 * Connects to an instance of this user. `root` is the configuration's bus.root, or NULL
 * where it sets none. `*client` is to be freed with framebus_client_free.
 *
 * # Safety
 * `instance` and `root` end in a zero; `client` may be written.
 */
int32_t framebus_connect(const char *instance, const char *root, struct framebus_client **client);

/**
 * Leaves the instance. Streams that were opened go on. NULL is allowed.
 *
 * # Safety
 * `client` comes from framebus_connect and is not used again.
 */
void framebus_client_free(struct framebus_client *client);

/**
 * Subscribes to the results of all cameras, from now on. `*results` is to be freed with
 * framebus_results_free, and belongs to one thread at a time.
 *
 * # Safety
 * `client` comes from framebus_connect; `results` may be written.
 */
int32_t framebus_results_open(struct framebus_client *client, struct framebus_results **results);

/**
 * Gives up the reader's place. Results that it gave stay valid. NULL is allowed.
 *
 * # Safety
 * `results` comes from framebus_results_open and is not used again.
 */
void framebus_results_free(struct framebus_results *results);

/**
 * The next result: FRAMEBUS_OK, or FRAMEBUS_NONE when none comes within `timeout_ms` (0:
 * does not wait; negative: waits for ever, signals do not end it). `*result` is a copy,
 * NULL unless the answer is FRAMEBUS_OK; keep it as long as you like, then call
 * framebus_result_free.
 *
 * # Safety
 * `results` comes from framebus_results_open; `result` may be written.
 */
int32_t framebus_results_next(struct framebus_results *results,
                              int32_t timeout_ms,
                              const struct framebus_result **result);

/**
 * Frees a result. NULL is allowed; twice is an error as with free().
 *
 * # Safety
 * `result` comes from framebus_results_next or framebus_joined_next and is not used again.
 */
void framebus_result_free(const struct framebus_result *result);

/**
 * A descriptor for poll() and epoll: readable when something was sent. Then call
 * framebus_results_next with timeout 0 until it says FRAMEBUS_NONE. Neither read nor
 * close it. Negative: an error.
 *
 * # Safety
 * `results` comes from framebus_results_open.
 */
int32_t framebus_results_fd(struct framebus_results *results);

/**
 * What the reader has counted so far.
 *
 * # Safety
 * `results` comes from framebus_results_open; `counters` may be written.
 */
int32_t framebus_results_counters(struct framebus_results *results,
                                  struct framebus_counters *counters);

/**
 * Subscribes to the frames of one camera, from now on. `*frames` is to be freed with
 * framebus_frames_free, and belongs to one thread at a time.
 *
 * # Safety
 * `client` comes from framebus_connect, `camera` ends in a zero, `frames` may be written.
 */
int32_t framebus_frames_open(struct framebus_client *client,
                             const char *camera,
                             struct framebus_frames **frames);

/**
 * Gives up the reader's place. Frames that it gave stay valid. NULL is allowed.
 *
 * # Safety
 * `frames` comes from framebus_frames_open and is not used again.
 */
void framebus_frames_free(struct framebus_frames *frames);

/**
 * The newest frame, as framebus_results_next. `*frame` holds its memory until
 * framebus_frame_free; four of a camera at a time, then FRAMEBUS_ERROR_HELD.
 *
 * # Safety
 * `frames` comes from framebus_frames_open; `frame` may be written.
 */
int32_t framebus_frames_next(struct framebus_frames *frames,
                             int32_t timeout_ms,
                             const struct framebus_frame **frame);

/**
 * Gives a frame back: its planes must not be read any more. NULL is allowed; twice is an
 * error as with free().
 *
 * # Safety
 * `frame` comes from framebus_frames_next or framebus_joined_next and is not used again.
 */
void framebus_frame_free(const struct framebus_frame *frame);

/**
 * As framebus_results_fd.
 *
 * # Safety
 * `frames` comes from framebus_frames_open.
 */
int32_t framebus_frames_fd(struct framebus_frames *frames);

/**
 * As framebus_results_counters.
 *
 * # Safety
 * `frames` comes from framebus_frames_open; `counters` may be written.
 */
int32_t framebus_frames_counters(struct framebus_frames *frames,
                                 struct framebus_counters *counters);

/**
 * Subscribes to one camera's frames together with their results. `*joined` is to be
 * freed with framebus_joined_free, and belongs to one thread at a time.
 *
 * # Safety
 * `client` comes from framebus_connect, `camera` ends in a zero, `joined` may be written.
 */
int32_t framebus_joined_open(struct framebus_client *client,
                             const char *camera,
                             struct framebus_joined **joined);

/**
 * Gives up both readers' places, and the frames that wait. NULL is allowed.
 *
 * # Safety
 * `joined` comes from framebus_joined_open and is not used again.
 */
void framebus_joined_free(struct framebus_joined *joined);

/**
 * The next frame with its result, as framebus_results_next; both are to be freed.
 *
 * # Safety
 * `joined` comes from framebus_joined_open; `frame` and `result` may be written.
 */
int32_t framebus_joined_next(struct framebus_joined *joined,
                             int32_t timeout_ms,
                             const struct framebus_frame **frame,
                             const struct framebus_result **result);

/**
 * As framebus_results_fd: of the frames and of the results, to be waited for together.
 *
 * # Safety
 * `joined` comes from framebus_joined_open; `frames_fd` and `results_fd` may be written.
 */
int32_t framebus_joined_fds(struct framebus_joined *joined,
                            int32_t *frames_fd,
                            int32_t *results_fd);

/**
 * What the readers have counted so far: `lost` frames, their lag, bad headers of both,
 * and results without their frame.
 *
 * # Safety
 * `joined` comes from framebus_joined_open; `counters` may be written.
 */
int32_t framebus_joined_counters(struct framebus_joined *joined,
                                 struct framebus_counters *counters);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FRAMEBUS_H */
