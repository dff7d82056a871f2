-- The open turns: their places in the queue, and whether their keys are still there.

local ENDED = {done = true, stopped = true, failed = true, dead = true, dropped = true}

local function is_queued(id, turn)
  return is_open(turn) and turn.thread and redis.call('LPOS', key('mailbox', turn.thread), id)
end

-- Counts a person's running turns. Removes those whose end will not be reported, because their record is
-- lost or was changed, or because their thread does not know them.
local function prune_and_count_running(person)
  local running = key('running', person)
  for _, id in ipairs(redis.call('SMEMBERS', running)) do
    local turn = record(id)
    local runs = turn.state == 'running' and turn.person == person and is_queued(id, turn)
    if not runs then redis.call('SREM', running, id) end
  end
  return redis.call('SCARD', running)
end

-- Repairs lost or changed keys. The id of a turn that is not queued is dropped. A thread that is in no
-- place, or throttled while nothing of its person runs, would wait forever: it is made ready.
local function repair_open(id)
  local turn = record(id)
  if not is_queued(id, turn) then return close(id, turn.person) end
  local thread, platform = turn.thread, platform_of(turn.thread)
  local first = record(redis.call('LINDEX', key('mailbox', thread), 0))
  if redis.call('ZSCORE', key('throttled', first.person), thread) then
    if prune_and_count_running(first.person) == 0 then wake_throttled(first.person) end
    return
  end
  local found = redis.call('ZSCORE', key('ready_threads', platform), thread)
    or redis.call('ZSCORE', key('delayed', platform), thread)
    or redis.call('HGET', key('claimed', platform), first.entry) == thread
  if not found then make_ready(thread) end
end

local function check_some_open()
  for _, id in ipairs(redis.call('ZRANDMEMBER', key('open'), 20)) do repair_open(id) end
end

-- The thread's first turn and its record; nothing if none is left.
local function prune_to_first(thread)
  while true do
    local id = redis.call('LINDEX', key('mailbox', thread), 0)
    if not id then return end
    local turn = record(id)
    if redis.call('EXISTS', key('turn', id)) == 1 and not ENDED[turn.state] then
      if turn.thread ~= thread then redis.call('HSET', key('turn', id), 'thread', thread) end
      turn.thread = thread
      return id, turn
    end
    -- Its record has expired or was changed.
    redis.call('LPOP', key('mailbox', thread))
    close(id, turn.person)
    redis.call('SREM', key('running', turn.person), id)
  end
end

local function keeps_others_waiting(thread, person)
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local other = redis.call('HGET', key('turn', id), 'person')
    if other and other ~= person then return true end
  end
  return false
end

-- The milliseconds since a turn was admitted, or asked for again.
local function open_for(id)
  return now_ms() - (tonumber(redis.call('ZSCORE', key('open'), id)) or now_ms())
end

-- Returns how many turns are open, and for each platform how many run and for how long (ms) the next one waits.
function verbs.load(...)
  local found = {redis.call('ZCARD', key('open'))}
  for _, platform in ipairs({...}) do
    local thread = redis.call('ZRANGE', key('ready_threads', platform), 0, 0)[1]
    local first = thread and redis.call('LINDEX', key('mailbox', thread), 0)
    table.insert(found, redis.call('HLEN', key('claimed', platform)))
    table.insert(found, first and open_for(first) or 0)
  end
  return found
end
