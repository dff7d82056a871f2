-- A turn ends.

-- Bytes of a turn's record beside its texts, and of the keys that lead from its messages to the thread.
local RECORD_BYTES = 2000

-- Drops the oldest exchanges. The newest always stays.
local function shorten(history, limit, most_bytes)
  local lines, kept, size = redis.call('LRANGE', history, -limit, -1), 0, 0
  for at = #lines, 1, -1 do
    size = size + #lines[at]
    if kept > 0 and size > tonumber(most_bytes) then break end
    kept = kept + 1
  end
  redis.call('LTRIM', history, -kept, -1)
end

-- A regenerated turn is still the last one, because nothing else ran in its thread.
local function remember(thread, id, exchange, limit, most_bytes)
  local history = key('history', thread)
  if tonumber(limit) == 0 then return redis.call('DEL', history) end
  if last_remembered(thread) == id then
    redis.call('LSET', history, -1, exchange)
  else
    redis.call('RPUSH', history, exchange)
  end
  shorten(history, limit, most_bytes)
  keep(history, key('speakers', thread))
end

-- The questions of joined turns stay in their records, so that they can be edited one by one.
local function end_joined(id, turn, outcome, counts, limits)
  for _, one in ipairs(joined_to(id)) do
    if lead_of(one) == id and record(one).state == 'queued' then
      settle(one, turn, counts, 0)
      local name = key('turn', one)
      redis.call('HSET', name, 'state', outcome, 'message_ids', '[]', 'shown', '')
      redis.call('HDEL', name, 'position', 'attempts', 'edited_since_take', 'stop')
      keep_ended(one, turn.thread, limits)
      redis.call('LREM', key('mailbox', turn.thread), 1, one)
      close(one, turn.person)
      local size = RECORD_BYTES + size_of(one)
      count_kept(one, turn.person, size, limits.person_bytes)
    end
  end
end

-- Whether a turn has no answer, and none has followed it.
local function may_be_retried(id, thread)
  local known = redis.call('HMGET', key('turn', id), 'forget', 'after')
  return not known[1] and known[2] == last_remembered(thread)
end

-- Notes the thread's newest reply and returns the one that is older now; nothing if there is none, or if this one
-- shows nothing. A reply that was written anew may be above a failed one, which stays the newest while it can be
-- retried: then this one is the older.
local function note_newest(id, thread, message_ids)
  local name = key('newest', thread)
  if last_of(message_ids) == '' then return end
  local before = redis.call('GET', name)
  if type(before) ~= 'string' or before == id then before = nil end
  local has_ended_before = redis.call('HEXISTS', key('turn', id), 'kept') == 1
  if before and has_ended_before and may_be_retried(before, thread) then return id end
  -- A forgotten answer has no buttons.
  if before and redis.call('HEXISTS', key('turn', id), 'forget') == 1 then return id end
  redis.call('SET', name, id, 'PX', ARGV[2])
  return before
end

-- An exchange without messages that were deleted, and people who were forgotten, while a worker had it.
local function without_withdrawn(exchange, id, thread)
  for _, one in ipairs(ids_in(redis.call('HGET', key('turn', id), 'unheard') or '')) do
    exchange = without_text(exchange, one)
  end
  redis.call('HDEL', key('turn', id), 'unsaid')
  return without_forgotten(exchange, thread)
end

-- `last` is the thread's last remembered turn.
local function end_without_exchange(id, thread, last)
  local name = key('turn', id)
  redis.call('HSET', name, 'after', last)
  local context = decoded(redis.call('HGET', name, 'context') or '').messages
  if last == '' and (type(context) ~= 'table' or #context == 0) then note_seen(thread) end
end

local function end_with_exchange(id, thread, exchange, limits)
  remember(thread, id, exchange, limits.history, limits.history_bytes)
  renew_context_index(thread)
  redis.call('HDEL', key('turn', id), 'previous_answer', 'after')
end

local function store_outcome(id, ended)
  local name = key('turn', id)
  redis.call('HSET', name, 'state', ended.outcome, 'message_ids', ended.message_ids, 'shown', ended.shown,
    'end', ended.end_kind)
  redis.call('HDEL', name, 'worker', 'position', 'attempts', 'max_progress', 'more', 'stop')
end

-- The history has the question, unless it was edited since. Without an exchange the record keeps it, so that
-- it can be regenerated. Without a history the record has all texts for a while.
local function keeps_question(id, thread, exchange, last, limits)
  return #joined_to(id) > 0 or limits.history == 0
    or exchange == '' and (last ~= id or last_question(thread) ~= redis.call('HGET', key('turn', id), 'text'))
end

-- Gives the slots of an ended turn, in its thread and among the running turns of its person, to the next ones.
local function make_way(id, turn)
  redis.call('LREM', key('mailbox', turn.thread), 1, id)
  close(id, turn.person)
  redis.call('SREM', key('running', turn.person), id)
  leave_queue(turn.thread, turn.person)
  if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then make_ready(turn.thread) end
  wake_throttled(turn.person)
end

local function count_ended(id, person, ended, keeps, limits)
  -- A previous answer that stays is counted already.
  if ended.exchange == '' and not keeps then return end
  local size = RECORD_BYTES + #ended.shown + #ended.exchange
  if keeps then
    size = size + size_of(id) + redis.call('HSTRLEN', key('turn', id), 'context')
  end
  count_kept(id, person, size, limits.person_bytes)
end

-- `ended` has the arguments of `finish`. Returns as `finish` does.
local function end_turn(id, turn, ended, last, limits)
  local outcome, thread = ended.outcome, turn.thread
  -- A question that only failed costs nothing.
  local counts = ended.exchange ~= '' or outcome ~= 'failed' and outcome ~= 'dead'
  end_joined(id, turn, outcome, counts, limits)
  settle(id, turn, counts, ended.used)
  ended.exchange = without_withdrawn(ended.exchange, id, thread)
  local forgotten = redis.call('HGET', key('turn', id), 'forget')
  if forgotten == WITH_ANSWER then ended.shown = '' end
  if ended.exchange == '' then
    end_without_exchange(id, thread, last)
  elseif not forgotten then
    end_with_exchange(id, thread, ended.exchange, limits)
  end
  -- Without text, a dead turn may not have its apology yet.
  if outcome == 'dead' and ended.shown ~= '' then note_late_writes(id, ended.message_ids) end
  store_outcome(id, ended)
  local keeps = keeps_question(id, thread, ended.exchange, last, limits)
  if forgotten or not keeps then drop_question(id) end
  keep_ended(id, thread, limits)
  local older = note_newest(id, thread, ended.message_ids)
  if forgotten == AFTER_REPAIR then repair_buttons(id, thread) end
  if tonumber(turn.fence) > 1 or outcome == 'dead' then schedule_repair(id, thread, limits.late_write_ms) end
  make_way(id, turn)
  count_ended(id, turn.person, ended, keeps, limits)
  return older and {older} or 'ok'
end

-- A repeated call, whose first answer was lost, changes nothing. `end_kind` is how the answer ended, `used` how many
-- tokens it took, '' if that is not known, and `limits` JSON: after how long a write of an earlier attempt has
-- arrived, or never will (`late_write_ms`), and the limits of storage (`history`, `history_bytes`, `person_bytes`). Returns
-- 'ok', or {the turn whose reply is older than another one now}.
function verbs.finish(id, fence, outcome, message_ids, shown, exchange, end_kind, used, limits)
  local turn = record(id)
  if turn.fence == fence and turn.state == outcome or is_record_lost(id) then return 'ok' end
  if not holds(turn, fence) then return 'lost' end

  local name, last = key('turn', id), last_remembered(turn.thread)
  -- Messages that were posted while the store was away are new here.
  redis.call('HSET', name, 'message_ids', message_ids)
  note_posted(turn.thread, message_ids)
  if redis.call('HEXISTS', name, 'edited_since_take') == 1 then
    redis.call('HSET', name, 'shown', shown, 'more', cjson.encode({used = natural(used)}))
    return 'edited_since_take'
  end
  local ended = {
    outcome = outcome, message_ids = message_ids, shown = shown, exchange = exchange,
    end_kind = end_kind, used = used,
  }
  return end_turn(id, turn, ended, last, decoded(limits))
end

-- Ends a turn with an unreadable record as dead. It is found by its thread, because a client may be unable to
-- write its id.
function verbs.give_up(thread, fence, limits)
  local id = redis.call('LINDEX', key('mailbox', thread), 0)
  if not id then return 'lost' end
  local known = redis.call('HMGET', key('turn', id), 'message_ids', 'shown')
  redis.call('HDEL', key('turn', id), 'edited_since_take')
  return verbs.finish(id, fence, 'dead', known[1] or '[]', known[2] or '', '', 'failed', nil, limits)
end
