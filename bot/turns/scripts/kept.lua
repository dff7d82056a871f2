-- What is kept of ended turns.

-- Without a history, texts expire so much later (ms) than the time for a repair.
local LAST_WORDS_MS = 60000

local function note_seen(thread)
  redis.call('SET', key('seen', thread), '1', 'PX', ARGV[2])
end

-- `ids` is a set.
local function forget_exchanges(thread, ids)
  local history = key('history', thread)
  for _, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
    if ids[turn_of(line)] and redis.call('LREM', history, 1, line) == 1 then
      note_seen(thread)
    end
  end
end

-- The id of a turn stays known for so long (ms), and is not admitted again.
local function mark_dropped(id, duration)
  redis.call('HSET', key('turn', id), 'state', 'dropped')
  redis.call('PEXPIRE', key('turn', id), duration)
end

-- The id stays known for a while, so that the turn is not admitted again. The record of a turn that has to be
-- repaired is still needed, and a regenerated one is counted again at its end.
local function discard(id)
  local name, turn = key('turn', id), record(id)
  if not turn.thread then return end
  forget_exchanges(turn.thread, {[id] = true})
  local has_repair = redis.call('ZSCORE', key('repairs', platform_of(turn.thread)), id)
  if has_repair or is_open(turn) then return end
  for _, message in ipairs(ids_in(redis.call('HGET', name, 'message_ids'))) do
    redis.call('DEL', key('posted', platform_of(turn.thread), message))
  end
  redis.call('DEL', name)
  redis.call('ZREM', key('turns', turn.thread), id)
  mark_dropped(id, LATE_ADMISSION_MS)
end

-- Adds an ended turn to its person's list, and discards the oldest beyond `most_bytes`.
local function count_kept(id, person, size, most_bytes)
  local list = key('kept', person)
  local last = redis.call('LINDEX', list, -1) or '0'
  local total = math.min(tonumber(string.match(last, '^%d+')) or 0, 2 ^ 52) + size
  local mark = string.format('%.0f', total)
  redis.call('RPUSH', list, mark .. ' ' .. id)
  redis.call('HSET', key('turn', id), 'kept', mark)
  keep(list)
  while true do
    local upto, oldest = string.match(redis.call('LINDEX', list, 0), '^(%d+) (.*)$')
    if upto and total - upto < tonumber(most_bytes) then return end
    redis.call('LPOP', list)
    -- A turn that was regenerated has a later entry.
    if upto and redis.call('HGET', key('turn', oldest), 'kept') == upto then discard(oldest) end
  end
end

-- A limit of 0 exchanges means that nothing said outlives its turn: the record expires soon, and the id stays
-- known without it.
local function keep_ended(id, thread, limits)
  redis.call('ZADD', key('turns', thread), now_ms(), id)
  redis.call('ZREMRANGEBYSCORE', key('turns', thread), '-inf', now_ms() - ARGV[2])
  keep(key('turns', thread))
  if limits.history > 0 then return keep(key('turn', id)) end
  redis.call('PEXPIRE', key('turn', id), limits.late_write_ms + LAST_WORDS_MS)
  redis.call('SET', key('answered', id), '1', 'PX', ARGV[2])
end
