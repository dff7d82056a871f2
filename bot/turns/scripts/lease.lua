-- A worker saves what it has, and gives a turn back.

-- A message of an answer may have been deleted before the store knew it.
local function note_posted(id, thread)
  local platform = platform_of(thread)
  for _, message in ipairs(ids_of(id, 'message_ids')) do
    redis.call('SET', key('posted', platform, message), thread .. ' ' .. id, 'PX', keep_ms(thread))
    if redis.call('DEL', key('deleted', platform, message)) == 1 then
      verbs.forget('', platform, 0, message)
    end
  end
end

-- What the model has thought has a key of its own, because the history and the screens do not need it.
local function store_thoughts(id, thread, progress)
  local name, text = key('thoughts', id), progress.thoughts
  if text == '' then
    redis.call('DEL', name)
  elseif text then
    redis.call('HSET', name, 'text', text, 'seconds', progress.thought_seconds)
    keep_in(thread, name)
  end
  progress.thoughts, progress.thought_seconds = nil, nil
end

-- An attempt that shows more than all before it counts as the first again. A turn that crashes its workers gets no
-- further, so its attempts run out. Text without a message was never visible. `progress` is JSON: fields of the record.
function verbs.save(id, fence, progress)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  progress = decoded(progress)
  if progress.message_ids ~= '' and #progress.shown > natural(get(id, 'max_progress')) then
    set(id, 'attempts', 1, 'max_progress', #progress.shown)
  end
  -- After an edit the worker saves its answer as if it were stopped.
  if has(id, 'edited_since_take') then progress.shown = nil end
  store_thoughts(id, turn.thread, progress)
  for field, value in pairs(progress) do set(id, field, value) end
  note_posted(id, turn.thread)
  -- `note_posted` may have just stopped the turn.
  return request_to(id)
end

-- Saves the messages of others that the prompt shows, before the model is asked.
function verbs.save_context(id, fence, lines)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  store_context(id, turn.thread, lines)
  set(id, 'context_read', '1')
  return ''
end

-- Saves what was read of a file of a `message`, before the model is asked; not if that was forgotten or edited since.
function verbs.save_file(id, fence, message, file, text)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  local is_own = message == id or contains(ids_of(id, 'joined'), message)
  local is_known = is_own or redis.call('SISMEMBER', key('heard', message), id) == 1
  if not is_known or has(id, 'forget') or has(id, 'edited_since_take') then return '' end
  redis.call('HSET', key('files', id), message .. ' ' .. file, text)
  keep_in(turn.thread, key('files', id))
  return ''
end

-- `counts` is '1' if the attempt counts, '' if the turn is only handed over.
function verbs.release(id, fence, delay, counts, used, bill)
  local turn = record(id)
  if turn.fence == fence and turn.state == 'queued' then return 'ok' end
  if not holds(turn, fence) then return 'lost' end
  redis.call('HSET', key('turn', id), 'state', 'queued')
  set_used(id, used, bill)
  if counts == '' then redis.call('HINCRBY', key('turn', id), 'attempts', -1) end
  redis.call('SREM', key('running', turn.person), id)
  if tonumber(delay) > 0 then make_ready_after(turn.thread, delay) else make_ready(turn.thread) end
  wake_throttled(turn.person)
  return 'ok'
end
