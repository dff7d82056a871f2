-- A worker renews its lease, saves, and gives a turn back.

local function holds(turn, fence)
  return turn.state == 'running' and turn.fence == fence and turn.thread
end

-- No worker can take a turn without a record. So its current worker continues, and only the end is not
-- remembered: otherwise half an answer would stay.
local function is_record_lost(id)
  return redis.call('EXISTS', key('turn', id)) == 0
end

-- A person's request to the worker of a turn: to restart, or to stop.
local function request_to(id)
  local known = redis.call('HMGET', key('turn', id), 'edited_since_take', 'stop')
  return known[1] and 'edited_since_take' or known[2] or ''
end

-- A lease that has ended is renewed if no worker has taken the turn since: its fence is as it was.
function verbs.renew(id, fence, lease)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  make_due(turn.thread, lease)
  return request_to(id)
end

-- A message of an answer may have been deleted before the store knew it.
local function note_posted(thread, message_ids)
  local platform = platform_of(thread)
  for _, message in ipairs(ids_in(message_ids)) do
    redis.call('SET', key('posted', platform, message), thread, 'PX', ARGV[2])
    if redis.call('DEL', key('deleted', platform, message)) == 1 then
      verbs.forget('', platform, 0, message)
    end
  end
end

-- An attempt that shows more than all before it counts as the first again: a turn that kills its workers does
-- so each time at the same point. Text without a message was never visible.
function verbs.save(id, fence, message_ids, shown, more)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  local progress = tonumber(redis.call('HGET', key('turn', id), 'max_progress')) or 0
  if message_ids ~= '[]' and #shown > progress then
    redis.call('HSET', key('turn', id), 'attempts', 1, 'max_progress', #shown)
  end
  local request = request_to(id)
  redis.call('HSET', key('turn', id), 'message_ids', message_ids, 'more', more)
  -- A save before a restart has the end of a stopped answer, which will not be shown.
  if request ~= 'edited_since_take' then redis.call('HSET', key('turn', id), 'shown', shown) end
  note_posted(turn.thread, message_ids)
  -- A page may have been deleted before it was known.
  return request_to(id)
end

-- Saves the messages of others that the prompt shows, before the model is asked.
function verbs.save_context(id, fence, context)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  context = without_forgotten(context, turn.thread)
  redis.call('HSET', key('turn', id), 'context', context)
  note_context_messages(turn.thread, decoded(context))
  return ''
end

-- `counts` is '1' if the attempt counts, '' if the turn is only handed over.
function verbs.release(id, fence, delay, counts)
  local turn = record(id)
  if turn.fence == fence and turn.state == 'queued' then return 'ok' end
  if not holds(turn, fence) then return 'lost' end
  redis.call('HSET', key('turn', id), 'state', 'queued')
  if counts == '' then redis.call('HINCRBY', key('turn', id), 'attempts', -1) end
  redis.call('SREM', key('running', turn.person), id)
  if tonumber(delay) > 0 then make_due(turn.thread, delay) else make_ready(turn.thread) end
  wake_throttled(turn.person)
  return 'ok'
end
